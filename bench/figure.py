"""What every figure is: rows that are measured, kept and shown."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from echolith.compiler.errors import CompileError

if TYPE_CHECKING:
    from echolith.bench.store import Store

__all__ = ["Choice", "Figure", "Row", "Say"]

Row = dict
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is asked for; None stands for what a figure takes by itself."""

    units: tuple[int, ...] | None = None
    lanes: tuple[int, ...] | None = None
    boards: tuple[str, ...] | None = None
    clock: float | None = None  # MHz that place and route aim at
    seeds: int | None = None
    builds: bool = False  # place and route what no kept row has

    def __post_init__(self):
        if self.clock is not None and not self.clock > 0:
            raise CompileError(f"clock must be MHz above 0, not {self.clock:g}")
        if self.seeds is not None and self.seeds < 1:
            raise CompileError(f"seeds must be a whole number from 1 on, not {self.seeds}")


@dataclasses.dataclass(frozen=True)
class Figure:
    """``keys`` are the fields that say what a row is about, ``tools`` those whose versions shape it; ``columns`` show a
    row. Rows with "ok" false make the command fail."""

    title: str
    keys: tuple[str, ...]
    tools: tuple[str, ...]
    measure: Callable[[Choice, "Store", Say], Iterator[Row]]
    columns: Mapping[str, Callable[[Row], object]]
