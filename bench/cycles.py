"""Cycles and utilisation of learning, predicted and counted by the RTL."""

from collections.abc import Iterator
from functools import cache

from echolith.bench.figure import Choice, Figure, Row, Say
from echolith.bench.nets import REFERENCE, UNITS, design, samples
from echolith.bench.store import Store
from echolith.compiler.cycles import cycles
from echolith.compiler.design import Design
from echolith.compiler.estimate import BATCH
from echolith.compiler.registers import ERRORS
from echolith.compiler.utilisation import utilisation
from echolith.host.arrays import inputs, targets
from echolith.host.session import open_design
from echolith.sim.data import words

__all__ = ["FIGURE", "counted", "lanes_for", "predicted", "row"]

_LANES = (4, 8, 16, 32, 64)  # of the reference network
_BOARD = "ulx3s-85f"


def lanes_for(units: int) -> int:
    """The most lanes that a network of that size can use on the largest board."""
    return min(units, max(_LANES))


@cache
def predicted(units: int, lanes: int, board: str = _BOARD, cost_at: str = "last") -> Row:
    """Predicted cycles. A learned sample costs what `design.learning` runs in most batches, a checked one has the
    un-nudged copy; ``mean`` is that of a session."""
    d = design(units, lanes, board, cost_at=cost_at)
    spent = _predicted(d, BATCH)
    learned, checked = spent[d.learning(1)] / BATCH, spent["learn"] / BATCH
    return {
        "board": board, "units": units, "lanes": lanes, "cost_at": cost_at, "batch": BATCH,
        "cycles_per_predicted_sample": spent["predict"] / BATCH, "cycles_per_learned_sample": learned,
        "cycles_per_checked_sample": checked, "check": d.dynamics.check,
        "mean_cycles_per_learned_sample": learned + (checked - learned) / d.dynamics.check,
        "cycles_per_update": spent["update"],
        "mac_utilisation": utilisation(d, BATCH), "mac_utilisation_with_copy0": utilisation(d, BATCH, with_copy0=True),
        "hardware_id": f"{d.hardware.hardware_id:08x}", "program_id": f"{d.program_id:08x}",
    }


def row(units: int, lanes: int, board: str = _BOARD, cost_at: str = "last") -> Row:
    """Predicted and counted cycles. ``ok``: they are equal."""
    d = design(units, lanes, board, cost_at=cost_at)
    batch = _batch(d)
    expected, found = _predicted(d, batch), _counted(d, batch, cost_at)
    return predicted(units, lanes, board, cost_at) | {
        "rtl": {"batch": batch, "counted": found, "predicted": expected}, "ok": found == expected}


def counted(store: Store, about: Row) -> bool:
    """Whether a kept row says that the RTL of the same design took the cycles that are predicted."""
    return any(kept["ok"] and all(kept.get(key) == value for key, value in about.items())
               for kept in store.rows("cycles"))


def _predicted(d: Design, batch: int) -> dict[str, int]:
    """Cycles of every run, by its entry."""
    return {name: cycles(d.program, d.entries[name], d.hardware, 1 if name == "update" else batch // 2)
            for name in ("predict", "learn", "unchecked", "update") if name in d.entries}


def _batch(d: Design) -> int:
    """Samples that the chip surely takes in one run, of memories that may be in halves; at most a batch, even."""
    depths, outputs = d.hardware.depths, d.result_rows * d.outputs
    held = min(depths.data // d.record.lines, depths.order, depths.results // outputs)
    return max(2, min(BATCH, held // 2) // 2 * 2)


def _counted(d: Design, batch: int, cost_at: str) -> dict[str, int | str]:
    """Cycles of the RTL, from GO to DONE without stalls; of a run that raised a flag the flags."""
    x, y = samples(batch, rows=d.dynamics.steps, cost_at=cost_at)
    x = inputs(d, x)
    given = words(d, x, targets(d, y, batch, None))
    with open_design(d, "sim:") as chip:
        chip.device.clear()
        runs = {name: chip.device.run(name, *given) for name in ("predict", "learn", "unchecked") if name in d.entries}
        runs["update"] = chip.device.update({})
    return {name: f"flags {run.flags}" if run.flags & ERRORS else (run.cycles or 0) - (run.stalls or 0)
            for name, run in runs.items()}


def _measure(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    for board in choice.boards or (_BOARD,):
        for units in choice.units or UNITS:
            own = _LANES if units == REFERENCE else (8, lanes_for(units))
            for lanes in choice.lanes or sorted({min(n, units) for n in own}):
                for cost_at in ("last", "every") if units == REFERENCE else ("last",):
                    say(f"cycles: {units} units on {lanes} lanes, cost at {cost_at}")
                    yield row(units, lanes, board, cost_at)


FIGURE = Figure(
    title=f"Cycles of learning, batches of {BATCH}", keys=("board", "cost_at", "units", "lanes"),
    tools=("amaranth", "verilator"), measure=_measure,
    columns={
        "board": lambda r: r["board"], "cost at": lambda r: r["cost_at"], "units": lambda r: r["units"],
        "lanes": lambda r: r["lanes"], "cycles a learned sample": lambda r: f"{r['cycles_per_learned_sample']:,.1f}",
        "with copy 0": lambda r: f"{r['cycles_per_checked_sample']:,.1f}",
        "an update": lambda r: f"{r['cycles_per_update']:,}",
        "a predicted sample": lambda r: f"{r['cycles_per_predicted_sample']:,.1f}",
        "useful MACs": lambda r: f"{r['mac_utilisation']:.3f}",
        "their copy 0 useful": lambda r: f"{r['mac_utilisation_with_copy0']:.3f}",
        "RTL": lambda r: "as predicted" if r["ok"] else f"{r['rtl']['counted']}, not {r['rtl']['predicted']}",
    },
)
