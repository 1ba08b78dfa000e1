"""What the compiler must know of a board before anything is built. No pins here: those are in each board's file."""

from dataclasses import dataclass

from echolith.compiler.errors import CompileError

__all__ = ["BOARDS", "Board", "board"]


@dataclass(frozen=True)
class Board:
    """Capacities of a board's FPGA.

    ``width`` is the natural operand width of its multipliers, ``data_bits`` the memory left for samples. ``clock`` is
    what a core is built for unless told otherwise; one that misses it is built for nearly what it reaches.
    """

    name: str
    family: str  # "ecp5" or "ice40"
    width: int
    dsp: int
    luts: int
    brams: int
    sprams: int  # large single-port memories, for the weights
    oscillator: float  # Hz
    clock: float  # Hz
    segments: int  # log2 of the table pieces that fit one memory block well
    data_bits: int
    results: int  # words kept of a run's outputs
    overlap: bool  # room for what `Hardware.overlap` needs
    line: int  # bits of a word of the sample memory: one or two block memories side by side


BOARDS = {
    b.name: b for b in (
        Board("ulx3s-85f", "ecp5", 18, 156, 83640, 208, 0, 25e6, 125e6, 11, 1 << 20, 4096, True, 32),
        Board("icebreaker", "ice40", 16, 8, 5280, 30, 4, 12e6, 30e6, 8, 1 << 12, 256, False, 16),
    )
}


def board(name: str) -> Board:
    """The board called ``name``."""
    if not isinstance(name, str) or name not in BOARDS:
        raise CompileError(f"board must be one of {', '.join(sorted(BOARDS))}, not {name!r}")
    return BOARDS[name]
