"""The 32-bit register window and the memory banks behind it: one table for RTL, host and documentation.

Nothing here knows which link carries it. Addresses count 32-bit words.
"""

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "ABI", "BANKS", "ERRORS", "LARGE_BITS", "MAGIC", "READ_CYCLES", "REGISTERS", "Bank", "Flag", "Register", "address",
]

MAGIC = 0x4543484F  # "ECHO"
LARGE_BITS = 4
ERRORS = 0b111  # mask of the flags that discard a batch
READ_CYCLES = 3  # from a read strobe to the register, as long as the address stands
ABI = 3  # raised by every incompatible change of the register map, the program words or the frames


@dataclass(frozen=True)
class Register:
    """One word of the window. ``access`` is ``r``, ``w`` (reads as 0) or ``rw``."""

    name: str
    width: int
    access: str
    doc: str


REGISTERS = (
    Register("magic", 32, "r", "0x4543484F, 'ECHO'"),
    Register("abi", 32, "r", "version of this map, of the program words and of the frames"),
    Register("hardware", 32, "r", "hardware_id of the design this bitstream was made from"),
    Register("program", 32, "rw", "program_id, written by the host once the program is loaded; 0 after reset"),
    Register("range", 8, "w", "response exponent R: nudges are shifted left by R - msb(E)"),
    Register("gain", 5, "w", "gradient words are 2^gain times finer: operands are shifted right by exponent - gain"),
    Register("entry", 16, "w", "program address at which go starts"),
    Register("count", 16, "w", "pairs of samples in this run"),
    Register("first", 16, "w", "entry of the order memory at which this run starts; 0 without Hardware.overlap"),
    Register("into", 16, "w", "entry of the result memory at which its results start; 0 without Hardware.overlap"),
    Register("control", 3, "w", "bit 0: go; bit 1: stop and return to idle; bit 2, with go: inputs are streamed"),
    Register("status", 2, "r", "bit 0: busy; bit 1: waiting for streamed input"),
    Register("flags", 8, "r", "see Flag; cleared by go"),
    Register("cycles", 32, "r", "cycles from go to done of the last run"),
    Register("stalls", 32, "r", "of these, cycles that waited for streamed input"),
    Register("response", 32, "r", "OR over units and steps of |q+ - q-| in the last run"),
    Register("leading", 32, "r", "OR over samples, outputs and steps of |cost derivative| in the last run"),
    Register("saturated", 32, "r", "weight words clipped by the last run's updates"),
    Register("bank", 8, "w", "memory bank that the push and pull streams address; see Bank"),
    Register("pointer", 32, "w", "next 32-bit word of that bank; moves on with every word"),
    Register("scratch", 16, "rw", "free for link tests"),
)


def address(name: str) -> int:
    """Word address of the register called ``name``."""
    return _ADDRESS[name]


_ADDRESS = {register.name: index for index, register in enumerate(REGISTERS)}


class Flag(IntEnum):
    """Bits of ``flags``. Any of `ERRORS` discards the batch."""

    WRAPPED = 0  # a state left its range
    ECHO = 1  # copy 0 did not return to its initial state
    GRADIENT = 2  # a gradient word is within a factor two of wrapping
    LARGE = 3  # no error: a gradient word is within a factor 2^LARGE_BITS of wrapping, the gain should not grow


class Bank(IntEnum):
    """Memories behind the streams. Words wider than 32 bits take two stream words, low half first."""

    PROGRAM = 0
    TABLES = 1
    ORDER = 2  # with Hardware.overlap these two may be written while the core runs, but for what it reads
    DATA = 3
    WEIGHTS = 4
    GRADIENTS = 5
    VECTORS = 6  # master words of the neuron unit's vector parameters
    VECTOR_GRADIENTS = 7
    POSITIONS = 8
    MOMENTA = 9
    RESULTS = 10  # with Hardware.overlap it may be read while the core runs, but for what it writes
    STREAM = 11  # push only: input words of a streaming run
    INDEX = 12  # push only: elements that gathered operands are read from


BANKS = tuple(Bank)
