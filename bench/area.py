"""Clock and cells after place and route, over seeds, beside what was estimated.

The tools stop once they have what is asked for, so they are asked for more than they reach.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

from echolith.bench.figure import Choice, Figure, Row, Say
from echolith.bench.nets import REFERENCE, design
from echolith.bench.store import Store
from echolith.boards.build import Build, Survey
from echolith.boards.catalog import BOARDS, board
from echolith.compiler.errors import ResourceError
from echolith.compiler.resources import resources
from echolith.host.cli_output import note

__all__ = ["FIGURE", "clock"]

# Units of the network and lanes that each board is measured with.
_DESIGNS = {"ulx3s-85f": (REFERENCE, (4, 8, 16, 32, 64)), "icebreaker": (20, (1, 2))}
_SEEDS, _PATIENCE = 5, 300.0  # so many seeds where a build takes less than so many CPU seconds, else one
_AIM = 2.0  # times the board's usual clock
_CELLS = ("lut", "ff", "dsp", "bram", "spram")


def clock(store: Store, name: str, lanes: int) -> tuple[float, str]:
    """Hz, and where they are from: the median of the routed reference network, else the demo's build with as many
    lanes, else the board's usual clock."""
    for kept in store.rows("area"):
        if (kept["board"], kept["units"], kept["lanes"]) == (name, _DESIGNS[name][0], lanes):
            return kept["fmax_mhz"]["median"] * 1e6, f"median of {len(kept['seeds'])} routed {kept['date'][:10]}"
    for kept in _demos(store.folder / "builds.json"):
        if (kept["board"], kept["lanes"]) == (name, lanes):
            return min(kept["fmax_mhz"].values()) * 1e6, f"the demo's build of RTL {kept['rtl']}, one seed"
    return board(name).clock, "not routed"


def _demos(path: Path) -> list[Row]:
    """The demo's own builds, of digits with the reference network's size, as `bench/builds.py` keeps them."""
    builds = json.loads(path.read_text()) if path.exists() else {}
    return [row for build, row in builds.items() if build.startswith("demo-") and row.get("routed", True)]


def _measure(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    """Rows kept, marked ``stale`` if the RTL or the tools have changed; with ``builds`` those are made anew. What does
    not fit is said and left out, unless its lanes are asked for."""
    kept = {(r["board"], r["units"], r["lanes"]): r for r in store.rows("area")}
    for name in choice.boards or BOARDS:
        own, lanes_of = _DESIGNS[board(name).name]
        for units in choice.units or (own,):
            for lanes in choice.lanes or lanes_of:
                old = kept.get((name, units, lanes))
                if not old and not choice.builds:
                    continue
                say(f"area: {name}, {units} units on {lanes} lanes")
                try:
                    yield _row(name, units, lanes, old, choice, say)
                except ResourceError as error:
                    if choice.lanes:
                        raise
                    note(f"{name}, {units} units on {lanes} lanes: {error}")


def _row(name: str, units: int, lanes: int, old: Row | None, choice: Choice, say: Say) -> Row:
    d, usual = design(units, lanes, name), _AIM * board(name).clock / 1e6
    wanted = choice.clock or (old["wanted_mhz"] if old else usual)
    try:
        survey = Survey(d, wanted * 1e6)
    except ResourceError:
        if old is None:
            raise
        return old | {"stale": None}  # nothing to compare with: the tools are missing
    if old and (not choice.builds or old["key"] == survey.key and len(old["seeds"]) >= (choice.seeds or 1)):
        return old | {"stale": old["key"] != survey.key}
    builds = _routed(survey, choice.seeds, f"{name}, {lanes} lanes", say)
    about = {"board": name, "units": units, "lanes": lanes, "wanted_mhz": wanted, "key": survey.key, "stale": False,
             "hardware_id": f"{d.hardware.hardware_id:08x}"}
    cells = resources(d.hardware, board(name))
    return about | _account(builds) | {"estimated": cells.used, "error": cells.error}


def _account(builds: list[Build]) -> Row:
    """What the seeds came to; cells are those of the largest."""
    reached = [min(b.fmax_mhz.values()) for b in builds]
    return {
        "asked_mhz": builds[0].clock_mhz, "seeds": [b.seed for b in builds],
        "fmax_mhz": {"median": statistics.median(reached), "worst": min(reached), "best": max(reached),
                     "each": reached},
        "used": {kind: max(getattr(b, kind) for b in builds) for kind in _CELLS}, "available": builds[0].available,
        "seconds": statistics.median(b.seconds for b in builds), "made_with": builds[0].tools,
    }


def _routed(survey: Survey, seeds: int | None, name: str, say: Say) -> list[Build]:
    builds: list[Build] = []
    while len(builds) < (seeds or (_SEEDS if not builds or builds[0].seconds < _PATIENCE else 1)):
        say(f"area: {name}, seed {len(builds) + 1}")
        builds.append(survey.route(len(builds) + 1))
    return builds


def _kind(r: Row, kind: str) -> str:
    used, available = r["used"][kind], r["available"].get(kind, 0)
    guess, error = r["estimated"].get(kind, 0), r["error"].get(kind, 0)
    within = "" if abs(guess - used) <= error * used else f", {guess:,} estimated"
    return f"{used:,} of {available:,}{within}" if available else f"{used:,}"


FIGURE = Figure(
    title="After place and route: MHz over seeds, cells (what was not estimated within its error says so)",
    keys=("board", "units", "lanes"), tools=("amaranth",), measure=_measure,
    columns={
        "board": lambda r: r["board"], "units": lambda r: r["units"], "lanes": lambda r: r["lanes"],
        "median MHz": lambda r: f"{r['fmax_mhz']['median']:.1f}", "worst": lambda r: f"{r['fmax_mhz']['worst']:.1f}",
        "asked": lambda r: f"{r['asked_mhz']:.1f}", "seeds": lambda r: len(r["seeds"]),
        "LUT4 or LC": lambda r: _kind(r, "lut"), "FF": lambda r: _kind(r, "ff"),
        "DSP": lambda r: _kind(r, "dsp"), "block RAMs": lambda r: _kind(r, "bram"),
        "CPU seconds a build": lambda r: f"{r['seconds']:,.0f}",
        "of": lambda r: {None: "not checked", True: "OLDER RTL OR TOOLS", False: "this RTL"}[r["stale"]],
    },
)
