"""Program words: 32 bits, opcode in the top four. One table for the compiler, the sequencer and the predictor.

A program is straight-line code with counted loops. Sizes are set once (``SET``) and used by the sweeps that follow.
Contexts are places of a pair of samples (a, b) in the state memory: 0 holds (a, b), 1 the echoes (a+, a-),
2 the echoes (b+, b-); 3 is the input region. The sample that a slot works on follows from its context.
"""

from enum import IntEnum

__all__ = [
    "LOOP_BITS", "Context", "Dest", "Field", "Opcode", "Setting", "UpdateMode", "exec_word", "loop_word", "set_word",
]

LOOP_BITS = 16  # of a loop's count


class Opcode(IntEnum):
    HALT = 0
    LOOP = 1  # repeat up to END, value times (at least once)
    PAIRS = 2  # repeat up to END, once per pair of samples
    END = 3  # the value is the address of the loop's first word
    SET = 4  # setting <- value
    NEXT = 5  # take the next two entries of the order memory, forget the leading bits of their costs
    ROW = 6  # move the record offset by a signed value
    GUARD = 7  # if a flag is up, go on at the address given
    FETCH = 8  # LENGTH words of each sample's record at the offset -> input region, or -> targets
    FORWARD = 9
    OUTER = 10
    TRANSPOSED = 11
    UNITS = 12  # the neuron unit alone over LENGTH units
    UPDATE = 13


class Setting(IntEnum):
    """Registers of the sequencer; values have 24 bits."""

    BASE = 0  # first address of the block in every lane
    COLUMNS = 1
    TILES = 2
    ROWS = 3
    PERIOD = 4  # cycles per tile of a forward sweep: max(columns, 2 * lanes)
    LENGTH = 5
    RATE = 6  # signed mantissa below, coarse shift in bits 23..22


class Context(IntEnum):
    PAIR = 0
    ECHO_A = 1
    ECHO_B = 2
    INPUT = 3


class Dest(IntEnum):
    """Where the sums of a forward sweep go."""

    DRIVE = 0  # rounded and kept: B u + b
    HIDDEN = 1  # plus the drive, through the activation, to the lanes
    COST = 2  # through the cost derivative, to the lanes


class UpdateMode(IntEnum):
    CHECK = 0  # raise Flag.GRADIENT if a word is within a factor two of wrapping
    APPLY = 1  # master += round(gradient * rate)
    DECAY = 2  # gradient = round(gradient * rate)


class Field(IntEnum):
    """Bit positions of the execution words' options (the context is in bits 1..0)."""

    DEST = 2  # two bits; FORWARD: Dest, TRANSPOSED: bit 2 set for nudges, UPDATE: UpdateMode
    ECHO = 4  # FORWARD: scale by the sample's exponent
    SOURCE = 5  # FORWARD, OUTER: x is the input region instead of the context's positions
    EMIT = 6  # FORWARD to COST, UNITS: append to the results
    REVERSE = 7  # the five below: TRANSPOSED, UNITS
    NUDGE = 8
    DRIFT = 9
    LEARN = 10  # accumulate the gradients of vector parameters
    SPREAD = 11  # read the sample's half of PAIR instead of the context itself
    CLEAR = 12  # UNITS: write zeros
    CHECK = 13  # UNITS: raise Flag.ECHO unless zero; nothing is written
    TARGET = 14  # FETCH: to the target memory
    VECTOR = 16  # UPDATE: four bits, 0 for the lanes, else 1 + vector parameter


def exec_word(opcode: Opcode, context: int = 0, dest: int = 0, vector: int = 0, **options: bool) -> int:
    """An execution word; ``options`` are lower-case names of `Field`."""
    word = opcode << 28 | context | dest << Field.DEST | vector << Field.VECTOR
    for name, on in options.items():
        word |= bool(on) << Field[name.upper()]
    return word


def set_word(setting: Setting, value: int) -> int:
    return Opcode.SET << 28 | setting << 24 | value & 0xFFFFFF


def loop_word(opcode: Opcode, value: int = 0) -> int:
    """LOOP with a count, ROW with a signed offset, END or GUARD with an address, or any opcode without options."""
    return opcode << 28 | value & 0xFFFFFF
