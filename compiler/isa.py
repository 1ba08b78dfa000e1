"""Program words: 32 bits, opcode in the top four. One table for the compiler, the sequencer and the predictor.

A program is straight-line code with counted loops. Sizes are set once (``SET``) and used by the sweeps that follow.
Contexts are places of a pair of samples (a, b) in the state memory: 0 holds (a, b), 1 the echoes (a+, a-),
2 the echoes (b+, b-); 3 is the input region. The sample that a slot works on follows from its context.

In general hardware (`Hardware.general`) a context holds all vectors of a network. TRANSPOSED and UNITS are passes: at
element i they have q = V[FIRST + i], r = V[SECOND + i], the vector parameters' word i, and acc, the column's sum (0 in
UNITS). The step pipeline of KIND makes the result; without VALUE and ROWS it is the force of a kick, always in
TRANSPOSED and with FORCE in UNITS. A result with ROWS is row i: lane
i % lanes of tile TILE (TRANSPOSED: INTO) + i // lanes; the first row of a tile clears its other lanes, so that the rest
of a last tile reads as zero. Nothing that a command reads may be written by it, but an element's result may replace
its own operand, if no other element reads it.

REPEAT goes over the same block again: x starts COLUMNS elements after where it last did, row operands TILES tiles;
results go on where they ended. A round of OUTER then takes at least `timing.reuse` cycles.

Hardware with overlap that is not general (`Hardware.paired`) runs the next pair forward, in PAIR, beside the echoes of
the one before. Inputs and drives have buffers then, row operands two regions, and there are two records; `Pairing` says
which. Its drive block stands beside the coupling's: OUTER with SOURCE goes on in the EXTRA columns behind COLUMNS, and
FORWARD with SOURCE goes over these alone.

With packed products (`Hardware.packed`) two lanes share their multipliers. TRANSPOSED goes over columns two by two and
leaves out the last of an odd number, a bias; OUTER takes two cycles for each.

Hardware that keeps cost derivatives (`Depths.deltas`) does so in every FORWARD to COST without ECHO. With NUDGE the
latest that are still there come back, each read-out's once: one column is swept, whatever COLUMNS is.

Hardware for stacks (`Hardware.stacked`) knows contrasts: TRANSPOSED and UNITS with VALUE and NUDGE in an echo keep the
difference of both slots' results, with the sample of the pair.

Hardware with an index memory (`Depths.index`) gathers: with GATHER q is V[I[FIRST + i]], with GATHER_SECOND r is
V[I[SECOND + i]]. A command with GATHER moves no position; it kicks momenta from PLACE on. With REPEAT too, FORWARD and
OUTER gather x: column i of walk n is V[I[FIRST + n * COLUMNS + i]].
"""

from enum import IntEnum

__all__ = [
    "BUFFERS", "DRIFT_BITS", "KIND_BITS", "LOOP_BITS", "STEP_BITS", "VARIANT", "Context", "Dest", "Field", "Opcode",
    "Pairing", "Setting", "TILE_ROWS", "UpdateMode", "exec_word", "loop_word", "paired_word", "rows_value", "set_word",
    "shrunk", "tile_rows",
]

BUFFERS = 4  # of inputs and drives
LOOP_BITS = 16  # of a loop's count
VARIANT = 24  # bit of ROW: move the older record's offset; of GUARD: go on at the address for the last pair
KIND_BITS = 4
STEP_BITS = KIND_BITS + 2  # of a step pipeline's kind
DRIFT_BITS = 2
TILE_ROWS = 16  # bit of `Setting.ROWS`


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
    ROWS = 3  # of a block; those of each of its tiles, less one, from bit TILE_ROWS on; see `rows_value`
    EXTRA = 4  # further columns for the inputs; only if `Hardware.paired`
    LENGTH = 5
    RATE = 6  # signed mantissa below, coarse shift in bits 23..22
    # Only if `Hardware.general`, else zero: places in a context's vectors, of row operands and of drives. A run starts
    # with zeros; the settings above keep their values from run to run.
    SOURCE = 7  # FORWARD, OUTER: first element of x
    FIRST = 8  # TRANSPOSED, UNITS: first element of q, of the momenta and of the nudges used (written from 0 on)
    SECOND = 9  # TRANSPOSED, UNITS: first element of the second operand r
    PLACE = 10  # first element of the results with VALUE
    TILE = 11  # first tile of the row operands: read by OUTER, TRANSPOSED, written by FORWARD and UNITS with ROWS
    DRIVE = 12  # FORWARD: first row in the drive memory
    INTO = 13  # TRANSPOSED with ROWS: first tile of the results, none of those from TILE on that it reads
    REPEAT = 14  # FORWARD to VALUE, OUTER, TRANSPOSED: times more than once; only if `Hardware.repeat`
    STRIDE = 15  # words from a tile to the next; COLUMNS where this setting is not, which is without `Hardware.overlap`


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
    VALUE = 3  # plus the drive, through the activation of KIND, to the vectors at PLACE; general hardware only


class UpdateMode(IntEnum):
    CHECK = 0  # raise Flag.GRADIENT if a word is within a factor two of wrapping
    APPLY = 1  # master += round(gradient * rate)
    DECAY = 2  # gradient = round(gradient * rate)
    SHRINK = 3  # master += round(word, as sweeps and passes see it, * rate); only if `Hardware.shrinks`


class Field(IntEnum):
    """Bit positions of the execution words' options (the context is in bits 1..0)."""

    DEST = 2  # two bits; FORWARD: Dest, TRANSPOSED: bit 2 set for nudges (in PAIR), UPDATE: UpdateMode
    ECHO = 4  # FORWARD, ROWS: scale by the sample's exponent; DRIFT: slots are echoes of one sample, which respond
    SOURCE = 5  # FORWARD, OUTER: x is the input region, not the context's positions; TRANSPOSED, UNITS: bit 5 of KIND
    EMIT = 6  # FORWARD to COST, UNITS: append to the results
    REVERSE = 7  # the five below: TRANSPOSED, UNITS
    NUDGE = 8  # FORWARD to COST: not the sums, but the derivatives kept last; `Depths.deltas` only
    DRIFT = 9
    LEARN = 10  # accumulate the gradients of vector parameters
    SPREAD = 11  # read the sample's half of PAIR instead of the context itself
    CLEAR = 12  # UNITS: write zeros
    CHECK = 13  # UNITS: raise Flag.ECHO unless zero; nothing is written
    TARGET = 14  # FETCH: to the target memory; TRANSPOSED, UNITS: bit 4 of KIND
    # The general machine's
    VALUE = 15  # TRANSPOSED, UNITS: the result, wrapped, goes to the vectors at PLACE; neither kick nor drift
    KIND = 16  # four bits: which of the pipelines; UPDATE: 0 for the lanes, else 1 + vector parameter
    ROWS = 20  # TRANSPOSED, UNITS: the result goes to the row operands (scaled twin in an echo); neither kick nor drift
    FORCE = 21  # UNITS: the result is a force and kicks; without it the momenta keep their value
    MAXIMUM = 22  # UNITS with VALUE: only the largest result is kept, at PLACE
    MASS = 23  # with DRIFT: accumulate the gradients of the drift's vector parameters
    DRIFT_KIND = 24  # two bits: which of the drift pipelines
    GATHER = 26  # FIRST is a place in the index memory, which says where q is; FORWARD, OUTER: where x is
    GATHER_SECOND = 27  # the same of SECOND and r


class Pairing(IntEnum):
    """Bit positions in the words of `Hardware.paired`, whose pipelines are of one kind each."""

    BUFFER = 16  # two bits; FETCH, FORWARD, OUTER: of inputs and drives
    REGION = 18  # FORWARD writes, OUTER and TRANSPOSED read these row operands
    OLDER = 19  # FETCH: the record before the last NEXT; in an echo: its exponents
    TILE = 20  # FORWARD to DRIVE: one tile, the one behind the last; FETCH: beside other sweeps, none may stream
    FIRST = 21  # with TILE: the first


def exec_word(opcode: Opcode, context: int = 0, dest: int = 0, kind: int = 0, drift_kind: int = 0,
              **options: bool) -> int:
    """An execution word; ``options`` are lower-case names of `Field`."""
    word = opcode << 28 | context | dest << Field.DEST | drift_kind << Field.DRIFT_KIND
    word |= kind % (1 << KIND_BITS) << Field.KIND
    word |= (kind >> KIND_BITS & 1) << Field.TARGET | kind >> KIND_BITS + 1 << Field.SOURCE
    for name, on in options.items():
        word |= bool(on) << Field[name.upper()]
    return word


def paired_word(word: int, *, buffer: int = 0, region: int = 0, older: bool = False, tile: bool = False,
                first: bool = False) -> int:
    """An execution word with its bits of `Pairing`."""
    return (word | buffer << Pairing.BUFFER | region << Pairing.REGION | older << Pairing.OLDER
            | tile << Pairing.TILE | first << Pairing.FIRST)


def set_word(setting: Setting, value: int) -> int:
    return Opcode.SET << 28 | setting << 24 | value & 0xFFFFFF


def rows_value(rows: int, tile_rows: int) -> int:
    """What `Setting.ROWS` takes."""
    return rows | tile_rows - 1 << TILE_ROWS


def tile_rows(value: int) -> int:
    """Those of each tile, from what `Setting.ROWS` has."""
    return (value >> TILE_ROWS) + 1


def loop_word(opcode: Opcode, value: int = 0) -> int:
    """LOOP with a count, ROW with a signed offset, END or GUARD with an address, or any opcode without options."""
    return opcode << 28 | value & 0xFFFFFF


def shrunk(name: str) -> str:
    """Of the update that shrinks what the update ``name`` adds a gradient to."""
    return f"shrink:{name}"
