"""Which memories the synthesis makes of what: yosys's own choice by cost, for memories with a read and a write port."""

from dataclasses import dataclass

__all__ = ["Memory", "mapped"]

_MUX, _DEMUX, _PORT = 0.5, 0.5, 2.0  # yosys's costs: of a bit of a read multiplexer, a write enable, a read port


@dataclass(frozen=True)
class _Ram:
    """Cells of ``cost`` that hold 2^``address`` words of ``widths[0]`` bits, half as many of the next width ..."""

    kind: str
    cost: int
    address: int
    widths: tuple[int, ...]
    byte: int  # words are padded to a multiple of this, as far as the width allows


_RAMS = {
    "ecp5": (_Ram("lutram", 4, 4, (4,), 4), _Ram("bram", 128, 14, (1, 2, 4, 9, 18, 36), 9)),
    "ice40": (_Ram("bram", 64, 11, (2, 4, 8, 16), 1),),
}


@dataclass(frozen=True)
class Memory:
    """``cells`` of ``kind``: bram, lutram (16 x 4 bits each), or ff (one bit each); a read picks one of ``parts``."""

    kind: str
    cells: int
    parts: int


def mapped(words: int, bits: int, family: str) -> Memory:
    """The cheapest cells for ``words`` of ``bits``."""
    best, found = float(words * bits), Memory("ff", words * bits, words)
    for ram in _RAMS[family]:
        for index, width in enumerate(ram.widths):
            parts = -(-words // (1 << ram.address - index))
            byte = min(ram.byte, width)
            cells = -(-parts * -(-bits // byte) * byte // width)
            cost = ram.cost * cells + _MUX * (parts - 1) * bits + _DEMUX * parts * (parts > 1) + _PORT
            if cost < best:
                best, found = cost, Memory(ram.kind, cells, parts)
    return found
