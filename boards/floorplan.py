"""Where on a chip the lanes' multipliers and memories go.

Placers put logic well and these cells badly: their sites are few, in rows far from each other, and are filled one cell
after the other when all logic has its place. Of nearly the same netlist, wires were a third longer or not.
"""

from dataclasses import dataclass
from math import ceil, sqrt

from echolith.compiler.design import Hardware
from echolith.rtl.dp16kd import blocks
from echolith.sim import arith

__all__ = ["Floor", "placed"]

_CORE = "chip.core.array"
_FEW = 8  # lanes that were faster as the placer puts them: 123.8 MHz and 118.8, one seed


@dataclass(frozen=True)
class Floor:
    """Blocks of sites: one at each of the ``columns`` and ``rows``, those rows first that are filled first. Sites are
    columns and rows beyond the block's, and the name that the placer has for them."""

    columns: tuple[int, ...]
    rows: tuple[int, ...]
    multipliers: tuple[tuple[int, int, str], ...]
    memories: tuple[tuple[int, int, str], ...]

    def blocks(self, count: int) -> list[tuple[int, int]]:
        """So many neighbours, up one column and down the next."""
        height = min(len(self.rows), ceil(sqrt(count / 2)))
        wide, rows = ceil(count / height), sorted(self.rows[:height])
        first = (len(self.columns) - wide) // 2
        columns = self.columns[first:first + wide] if first >= 0 else ()
        return [(x, y) for i, x in enumerate(columns) for y in (rows if i % 2 else rows[::-1])][:count]


def placed(hw: Hardware, floor: Floor) -> dict[str, str]:
    """Sites of the array's cells, by the names that cells have in the netlist; none if there are not blocks enough, nor
    for few lanes: the placer finds room for their cells close to all else."""
    if hw.lanes <= _FEW:
        return {}
    lanes = [f"{_CORE}.pair_{i}" for i in range(hw.lanes // 2)] if hw.packed else [
        f"{_CORE}.lane_{i}" for i in range(hw.lanes)]
    memories = _memories(hw)
    together = min(len(floor.multipliers) // 2, len(floor.memories) // max(len(memories), 1))
    if together == 0:  # memories of a lane in several blocks: they are not placed
        memories, together = [], len(floor.multipliers) // 2
    found = {}
    for index, block in enumerate(floor.blocks(ceil(len(lanes) / together))):
        for place, lane in enumerate(lanes[index * together:(index + 1) * together]):
            cells = {f"{lane}.multiply_{i}.cell": floor.multipliers[2 * place + i] for i in range(2)}
            cells |= {f"{lane}.{name}": floor.memories[len(memories) * place + i] for i, name in enumerate(memories)}
            found |= {cell: f"X{block[0] + x}/Y{block[1] + y}/{site}" for cell, (x, y, site) in cells.items()}
    return found


def _memories(hw: Hardware) -> list[str]:
    """A lane's or a pair's, by name."""
    banks = {"weights": 2 * hw.width} | ({"gradients": arith.gradient_width(hw.width)} if hw.learn else {})
    lanes = ("_even", "_odd") if hw.packed else ("",)
    return [f"{bank}{lane}.{block}" for bank, width in banks.items() for lane in lanes
            for block in blocks(width, hw.depths.weights)]
