"""What a design needs that does not fit, and what would."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from echolith.boards.catalog import Board
from echolith.boards.report import Timing, Usage
from echolith.compiler.design import Design, Hardware
from echolith.compiler.errors import ResourceError
from echolith.compiler.layout import size
from echolith.compiler.resources import KINDS, resources

__all__ = ["TooSlow", "check", "shortage", "too_slow"]


class TooSlow(ResourceError):
    """A missed clock; ``reached`` is in Hz."""

    def __init__(self, message: str, reached: float):
        super().__init__(message)
        self.reached = reached

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"message": str(self), "reached": self.reached}) + "\n")

    @classmethod
    def load(cls, path: Path) -> "TooSlow":
        return cls(**json.loads(path.read_text()))


def check(design: Design, board: Board) -> str:
    """Before minutes of synthesis: what the estimate warns of, or "".

    Raises
    ------
    ResourceError
        If the design is too large even if every error of the estimate goes the right way.
    """
    found = resources(design.hardware, board)
    if certain := found.shortage(at_best=True):
        raise ResourceError(f"the design does not fit the {board.name} by the estimate before synthesis ({certain}): "
                            f"{_advice(design, board, Usage(found.used, found.available))}")
    possible = found.shortage()
    return f"this may not fit the {board.name} by the estimate before synthesis ({possible})" if possible else ""


def shortage(design: Design, board: Board, usage: Usage) -> ResourceError:
    """The error that says what is short, by how much, and what would fit."""
    short = usage.short()
    listed = ", ".join(f"{KINDS[k]}: {usage.used[k]} of {usage.available[k]}, {n} too many"
                       for k, n in short.items())
    if not short:
        full = ", ".join(f"{KINDS[k]}: {usage.used[k]} of {usage.available[k]}" for k in usage.used)
        return ResourceError(f"the design could not be placed on the {board.name} ({full}): try another seed, or "
                             f"fewer units or lanes, not {design.hardware.lanes}")
    return ResourceError(f"the design does not fit the {board.name} ({listed}): {_advice(design, board, usage)}")


def _advice(design: Design, board: Board, usage: Usage) -> str:
    hw = design.hardware
    now = resources(hw, board).used

    def fits(lanes: int, words: int | None = None) -> bool:
        other = resources(_with(design, lanes, words), board).used
        return all(n + other[k] - now[k] <= usage.available[k] for k, n in usage.used.items())

    for lanes in range(hw.lanes - 1, 0, -1):
        if fits(lanes):
            return f"about {lanes} lane{'s' * (lanes > 1)} would fit, not {hw.lanes}"
    words = hw.depths.weights
    while words > 16 and not fits(hw.lanes, words):
        words //= 2
    if words > 16:
        return (f"with {hw.lanes} lanes about {words} weights per lane would fit; use fewer units or rows, "
                f"not {hw.depths.weights} words")
    return f"no number of lanes fits; use fewer units, rows or samples, or a larger board than {board.name}"


def _with(design: Design, lanes: int, words: int | None) -> Hardware:
    """About the hardware with so many lanes, or with ``words`` weights in each."""
    hw, rows = design.hardware, [-(-b.rows // lanes) for b in design.blocks]
    words = words or size(max(sum(n * b.columns for n, b in zip(rows, design.blocks, strict=True)), 16))
    depths = dataclasses.replace(hw.depths, weights=words, tiles=size(max(rows, default=2)))
    return dataclasses.replace(hw, lanes=lanes, depths=depths)


def too_slow(board: Board, clock: str, best: Timing, seeds: Sequence[int]) -> TooSlow:
    """The error of a missed clock."""
    tried = ", ".join(map(str, seeds))
    return TooSlow(f"{clock} of the {board.name} needs {best.wanted:.2f} MHz: try a slower clock, other seeds (tried "
                   f"{tried}) or fewer lanes; reached {best.reached:.2f} MHz", best.reached * 1e6)
