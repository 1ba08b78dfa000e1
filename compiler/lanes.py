"""How many lanes: of the numbers that make a sample faster, the largest that fits the board."""

import math
from collections.abc import Callable, Iterator, Sequence

from echolith.boards.catalog import Board
from echolith.compiler.design import Hardware
from echolith.compiler.errors import ResourceError
from echolith.compiler.resources import Resources, resources

__all__ = ["MOST", "fullest"]

MOST = 128


def fullest(board: Board, rows: Sequence[int], attempt: Callable[[int], tuple[Hardware, float]]) -> int:
    """The number of lanes at which a sample takes the fewest cycles, among those that fit ``board`` by estimate.

    Parameters
    ----------
    board : Board
    rows : sequence of int
        Of every block of the network.
    attempt : callable
        Number of lanes to the hardware and the cycles of a sample.

    Raises
    ------
    ResourceError
        If no number of lanes fits.
    """
    best, fastest = 0, math.inf
    tried: dict[int, Resources] = {}
    for lanes in _worthwhile(rows):
        hardware, cycles = attempt(lanes)
        tried[lanes] = resources(hardware, board)
        if cycles < fastest and not tried[lanes].shortage():
            best, fastest = lanes, cycles
    if not best:
        nearest = min(tried, key=lambda lanes: tried[lanes].load)
        raise ResourceError(f"the network does not fit the {board.name} with any number of lanes, with {nearest} it "
                            f"takes {tried[nearest].shortage()}: use fewer units, rows or samples, or a larger board, "
                            f"not {board.name}")
    return best


def _worthwhile(rows: Sequence[int]) -> Iterator[int]:
    """Numbers of lanes at which some block has fewer tiles than with one lane less."""
    before: list[int] = []
    for lanes in range(1, min(max(rows, default=1), MOST) + 1):
        tiles = [-(-r // lanes) for r in rows]
        if tiles != before:
            yield lanes
        before = tiles
