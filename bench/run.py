"""`echolith bench`: the figures by name, measured one after the other, kept, shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from echolith.bench.figure import Choice, Figure, Row
from echolith.bench.store import Store, machine
from echolith.compiler.errors import CompileError
from echolith.host.cli_report import table

__all__ = ["FIGURES", "Measured", "measure"]

# Module and name of every figure. Those of QUICK are measured unless others are named.
FIGURES = {
    "cycles": ("cycles", "FIGURE"), "area": ("area", "FIGURE"), "speed": ("speed", "SPEED"), "link": ("speed", "LINK"),
    "growth": ("growth", "FIGURE"), "simulation": ("simulation", "FIGURE"), "accuracy": ("accuracy", "FIGURE"),
    "passes": ("passes", "FIGURE"), "rules": ("rules", "FIGURE"), "stacks": ("stacks", "LEARNING"),
    "stack-cosines": ("stacks", "COSINES"),
}
QUICK = tuple(name for name in FIGURES if name not in ("accuracy", "passes", "rules", "stacks", "stack-cosines"))


@dataclass(frozen=True)
class Measured:
    """Rows by figure."""

    rows: dict[str, list[Row]]
    store: Store

    @property
    def ok(self) -> bool:
        return all(row.get("ok", True) for rows in self.rows.values() for row in rows)

    def plain(self) -> dict:
        """As JSON."""
        figures = {name: {"title": _figure(name).title, "rows": rows} for name, rows in self.rows.items()}
        return {"ok": self.ok, "machine": machine(), "results": str(self.store.folder), "figures": figures}

    def __str__(self) -> str:
        found = machine()
        head = f"{found['cpu']}, {found['cores']} cores; " + ", ".join(f"{n} {v}" for n, v in found["versions"].items())
        parts = [_shown(name, rows) for name, rows in self.rows.items()]
        return "\n\n".join([head, *parts, f"kept in {self.store.folder}"])


def measure(names: Sequence[str], choice: Choice, store: Store, say: Callable[[str], None]) -> Measured:
    """The named figures, in the order in which they need each other; all quick ones if none is named."""
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise CompileError(f"figures are {', '.join(FIGURES)}, not {', '.join(map(repr, unknown))}")
    found: dict[str, list[Row]] = {}
    for name in (n for n in FIGURES if n in (names or QUICK)):
        figure = _figure(name)
        rows = figure.measure(choice, store, say)
        found[name] = [row if "date" in row else store.keep(name, figure, row) for row in rows]
    return Measured(found, store)


def _figure(name: str) -> Figure:
    module, value = FIGURES[name]
    return getattr(import_module(f"echolith.bench.{module}"), value)


def _shown(name: str, rows: list[Row]) -> str:
    figure = _figure(name)
    lines = [[show(row) for show in figure.columns.values()] for row in rows]
    none = "no build is kept: `echolith bench area --builds` places and routes, for minutes or hours"
    return f"{name}: {figure.title}\n" + (table([list(figure.columns), *lines]) if rows else none)
