"""Learned samples per second, beside torch on this machine and at the end of a serial link."""

import os
from collections.abc import Iterator

from echolith.bench import autograd
from echolith.bench.area import clock
from echolith.bench.cycles import counted, lanes_for, predicted
from echolith.bench.figure import Choice, Figure, Row, Say
from echolith.bench.nets import REFERENCE, UNITS, design
from echolith.bench.store import Store
from echolith.compiler.estimate import BATCH, estimate

__all__ = ["LINK", "SPEED"]

_BAUDS = (115_200, 1_000_000, 3_000_000)
_BOARD = "ulx3s-85f"
_QUIET = 0.9  # share of a core that torch must get for a fair figure
_GOALS = {"1": 40.0, "own": 1.5}  # times torch at batch 1 and at the chip's own, of the reference network
_GOAL_LANES = 64


def _speed(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    for units in choice.units or UNITS:
        rates = {}
        for batch in autograd.BATCHES:
            say(f"speed: torch, {units} units, batches of {batch}")
            rates[str(batch)] = autograd.rate(units, batch)
        for lanes in choice.lanes or sorted({min(8, units), lanes_for(units)}):
            say(f"speed: {units} units on {lanes} lanes")
            yield _beside(units, lanes, rates, store)


def _beside(units: int, lanes: int, rates: dict[str, dict[str, float]], store: Store) -> Row:
    found, hertz, source = predicted(units, lanes), *clock(store, _BOARD, lanes)
    spent = found["mean_cycles_per_learned_sample"] + found["cycles_per_update"] / BATCH
    chip, best = hertz / spent, max(rates, key=lambda b: rates[b]["median"])
    against = {"1": "1", "own": str(BATCH), "best": best}
    return {
        "board": _BOARD, "units": units, "lanes": lanes, "batch": BATCH,
        "core_share": min(r["share"] for r in rates.values()), "cycles_per_sample_with_update": spent,
        "cycles_from": "rtl" if counted(store, found) else "predicted", "clock_mhz": hertz / 1e6, "clock_from": source,
        "samples_per_second": chip, "torch": rates, "torch_best_batch": int(best),
        "times_torch": {name: chip / rates[b]["median"] for name, b in against.items()},
        "times_torch_thread": {name: chip / rates[b]["thread"] for name, b in against.items()},
        "goals": _GOALS if (units, lanes) == (REFERENCE, _GOAL_LANES) else {}, "load": os.getloadavg()[0],
    }


def _link(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    for units in choice.units or (REFERENCE,):
        for lanes in choice.lanes or (min(8, units), lanes_for(units)):
            hertz, source = clock(store, _BOARD, lanes)
            for baud in _BAUDS:
                say(f"link: {units} units on {lanes} lanes at {baud} baud")
                speeds = estimate(design(units, lanes), baud=baud, clock=hertz)["samples_per_second"]
                yield {"board": _BOARD, "units": units, "lanes": lanes, "baud": baud, "clock_mhz": hertz / 1e6,
                       "clock_from": source, "samples_per_second": speeds}


def _torch(r: Row, batch: object) -> str:
    found = r["torch"][str(batch)]
    return f"{found['median']:,.0f} ({found['worst']:,.0f} to {found['best']:,.0f})"


def _busy(r: Row) -> str:
    share = r["core_share"]
    return "quiet" if share > _QUIET else f"BUSY: torch got {100 * share:.0f} % of a core"


def _times(r: Row, against: str) -> str:
    return ", ".join(_beside_goal(x, r["goals"].get(name)) for name, x in r[against].items())


def _beside_goal(times: float, goal: float | None) -> str:
    return f"{times:.2f}" + ("" if goal is None else f" (goal {goal:g}, {'met' if times >= goal else 'MISSED'})")


def _clock(r: Row) -> str:
    return f"{r['clock_mhz']:.1f} MHz, {r['clock_from']}"


SPEED = Figure(
    title="Learned samples per second: core, and torch on this machine (median, slowest to fastest repeat)",
    keys=("board", "units", "lanes"), tools=("torch",), measure=_speed,
    columns={
        "units": lambda r: r["units"], "lanes": lambda r: r["lanes"], "clock": _clock,
        "cycles a sample": lambda r: f"{r['cycles_per_sample_with_update']:,.0f}, {r['cycles_from']}",
        "chip": lambda r: f"{r['samples_per_second']:,.0f}", "torch, batch 1": lambda r: _torch(r, 1),
        f"batch {BATCH}": lambda r: _torch(r, BATCH),
        "best batch": lambda r: f"{_torch(r, r['torch_best_batch'])} at {r['torch_best_batch']}",
        "times torch at 1, own, best batch": lambda r: _times(r, "times_torch"),
        "times its one thread by CPU time": lambda r: _times(r, "times_torch_thread"),
        "machine": _busy,
    },
)

LINK = Figure(
    title="Learned samples per second at the link, samples held on chip or sent each time (estimate)",
    keys=("board", "units", "lanes", "baud"), tools=(), measure=_link,
    columns={
        "units": lambda r: r["units"], "lanes": lambda r: r["lanes"], "clock": _clock,
        "baud": lambda r: f"{r['baud']:,}",
        **{name: lambda r, key=key: f"{r['samples_per_second']['learn'][key]:,.0f}"
           for name, key in (("core", "chip"), ("held", "held"), ("sent", "link"))},
    },
)
