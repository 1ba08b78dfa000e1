"""The verb ``bench``: from the words of the command line to a result."""

from collections.abc import Sequence
from pathlib import Path

from echolith.bench.figure import Choice
from echolith.bench.run import measure
from echolith.bench.store import Store
from echolith.boards.catalog import board as find_board
from echolith.compiler.errors import CompileError
from echolith.compiler.paths import folder
from echolith.host.cli_output import Result, spin

__all__ = ["run"]


def run(figures: Sequence[str], units: str | None, lanes: str | None, board: str | None, clock: float | None,
        builds: bool, seeds: int | None, results: Path | None, plots: Path | None) -> Result:
    """Measure, keep, draw."""
    boards = None if board is None else (find_board(board).name,)
    drawn = None if plots is None else folder(plots)  # before hours of measuring
    choice = Choice(_numbers("units", units), _numbers("lanes", lanes), boards, clock, seeds, builds)
    with spin("measuring") as say:
        found = measure(figures, choice, Store(results), say)
    pictures = []
    if drawn is not None:
        from echolith.bench.plots import draw

        pictures = [str(path) for path in draw(found.rows, drawn)]
    return Result({**found.plain(), "plots": pictures}, "\n".join([str(found), *pictures]), found.ok)


def _numbers(name: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise CompileError(f"{name} must be whole numbers from 1 on with commas between, not {text!r}")
    return tuple(map(int, parts))
