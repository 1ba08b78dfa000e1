"""From a design to a bitstream: synthesis, placement, routing, and an honest account of it."""

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from echolith.boards import fit
from echolith.boards.catalog import Board
from echolith.boards.catalog import board as find_board
from echolith.boards.floorplan import placed
from echolith.boards.pll import Pll, find
from echolith.boards.report import Timing, clocks, flip_flops, usage
from echolith.boards.tools import Tool, ToolFailed
from echolith.boards.tools import find as find_tools
from echolith.boards.top import BAUD, Top
from echolith.compiler.design import Design
from echolith.compiler.errors import ResourceError
from echolith.compiler.inventory import multipliers
from echolith.compiler.paths import folder, named
from echolith.sim.simulator import cache

__all__ = ["Build", "Survey", "build"]

_PLATFORMS = {"ulx3s-85f": ("ulx3s_85f", "Ulx3s85F"), "icebreaker": ("icebreaker", "Icebreaker")}
_SEEDS = 3  # tries if a clock is missed
_MARGIN = 0.95  # of what was reached, for a clock that is kept
_MISSED = "missed.json"  # in the cache, instead of a bitstream
# Nothing here reads an address in the cycle in which it is written (see `rtl.memory`): without this yosys builds
# comparators and bypasses around every memory.
_NO_COLLISIONS = "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2"
# Copies of a register (`rtl.pipeline.copied`) become one again unless their cells are kept too.
COPIES_APART = "setattr -set keep 1 a:keep=1 %ci1 t:$dff %i"
_ROUTED = ("--textcfg", "--asc")  # nextpnr's options for the chip that it routed
_COUNT = "tee -q -o top.cells.json stat -json"


@dataclass(frozen=True)
class Build:
    """A bitstream and what it took. ``lut`` counts logic cells on iCE40; MHz; ``network`` is in words."""

    path: str
    board: str
    network: str
    lanes: int
    hardware_id: int
    clock_mhz: float
    fmax_mhz: dict[str, float]
    lut: int
    ff: int
    dsp: int
    bram: int
    spram: int
    available: dict[str, int]
    seed: int
    baud: int
    seconds: float
    tools: dict[str, str]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Build":
        return cls(**json.loads(path.read_text()))


def build(design: Design, out_dir: str | Path, *, seed: int = 1, baud: int = BAUD,
          clock: float | None = None, progress: Callable[[str], None] | None = None) -> Build:
    """Build the bitstream of ``design``'s hardware for its board, or fetch an equal one from the cache.

    Parameters
    ----------
    design : Design
    out_dir : path
        Gets the bitstream, all logs and ``build.json``.
    seed : int
        Of placement; the next two are tried if the clock is missed.
    baud : int
        Of the serial port.
    progress : callable, optional
        Called with a line of text at each step.

    Raises
    ------
    ResourceError
        If the design does not fit, misses the clock, or a tool is missing or fails.
    FileError
        If ``out_dir`` is no directory and cannot be made.
    """
    say, out = progress or (lambda text: None), named(out_dir)
    target = find_board(design.report["board"])
    if warning := fit.check(design, target):
        say(warning)
    seeds = tuple(range(seed, seed + _SEEDS))
    if clock is not None:
        return _made(design, target, out, find(target.family, target.oscillator, clock), baud, seeds, say)
    try:
        return _made(design, target, out, find(target.family, target.oscillator, target.clock), baud, seeds[:1], say)
    except fit.TooSlow as missed:
        say(str(missed))
        slower = find(target.family, target.oscillator, missed.reached * _MARGIN)
    return _made(design, target, out, slower, baud, seeds, say)


def _made(design: Design, target: Board, out: Path, pll: Pll | None, baud: int, seeds: tuple[int, ...],
          say: Callable[[str], None]) -> Build:
    """Built at one clock, or fetched from the cache."""
    began = time.monotonic()
    folder(out)
    plan = _plan(design, target, baud, pll)
    commands = json.loads(plan.files["build_top.json"])["commands"]
    tools = find_tools([command[0] for command in commands])
    kept = cache() / "bitstreams" / _key(plan, tools, seeds)
    if (kept / _MISSED).exists():
        raise fit.TooSlow.load(kept / _MISSED)
    if (kept / "build.json").exists():
        say("the bitstream is in the cache")
        shutil.copytree(kept, out, dirs_exist_ok=True)
        made = Build.load(out / "build.json")
        made = dataclasses.replace(made, path=str((out / Path(made.path).name).resolve()), network=_network(design))
        made.save(out / "build.json")
        return made
    plan.extract(out)
    clock = pll.output if pll else target.oscillator
    try:
        made = _Run(design, target, clock, out.resolve(), commands, tools, say).make(seeds)
    except fit.TooSlow as missed:
        kept.mkdir(parents=True, exist_ok=True)
        missed.save(kept / _MISSED)
        raise
    made = dataclasses.replace(made, baud=baud, seconds=round(time.monotonic() - began, 1))
    made.save(out / "build.json")
    _keep(out, Path(made.path), kept)
    return made


def _plan(design: Design, target: Board, baud: int, pll: Pll | None):
    module, name = _PLATFORMS[target.name]
    platform = getattr(import_module(f"echolith.boards.{module}"), name)()
    return platform.prepare(Top(design.hardware, baud, pll), "top", emit_src=False,
                            script_after_read=f"{_NO_COLLISIONS}\n{COPIES_APART}",
                            script_after_synth="\n".join([*_sites(design, platform), _COUNT]),
                            **platform.overrides)


def _sites(design: Design, platform) -> list[str]:
    """Where the array's cells go, if the board's chip has a plan."""
    sites = placed(design.hardware, platform.floor) if hasattr(platform, "floor") else {}
    return [f'setattr -set BEL "{site}" c:{cell}' for cell, site in sites.items()]


def _key(plan, tools: dict[str, Tool], seeds: tuple[int, ...]) -> str:
    key = hashlib.blake2b(plan.digest(), digest_size=12)
    for text in (str(seeds), *(f"{name} {tool.version}" for name, tool in sorted(tools.items()))):
        key.update(text.encode())
    return key.hexdigest()


def _keep(out: Path, bitstream: Path, kept: Path) -> None:
    """Into the cache, complete or not at all."""
    work = kept.with_name(f"{kept.name}.{time.monotonic_ns()}")
    work.mkdir(parents=True)
    for name in (bitstream.name, "top.rpt", "top.tim", "top.pnr.json", "build.json"):
        shutil.copy(out / name, work / name)
    if kept.exists():
        shutil.rmtree(work)
    else:
        work.rename(kept)


def _network(design: Design) -> str:
    shape = ", ".join(f"{b.name} {b.rows} x {b.columns}" for b in design.blocks)
    return f"{design.units} units, {design.inputs} inputs, {design.outputs} outputs ({shape})"


class _Run:
    """One build in ``out``: the plan's three commands, the second once per seed."""

    def __init__(self, design: Design, target: Board, clock: float, out: Path, commands: list[list[str]],
                 tools: dict[str, Tool], say: Callable[[str], None]):
        self.design, self.board, self.clock, self.out, self.tools, self.say = design, target, clock, out, tools, say
        self.synthesis, self.routing, self.packing = commands

    def make(self, seeds: tuple[int, ...]) -> Build:
        self.say(f"synthesis of {self.design.hardware.lanes} lanes for the {self.board.name} at "
                 f"{self.clock / 1e6:.4g} MHz")
        self._run(self.synthesis, "synthesis")
        for index, attempt in enumerate(seeds):
            self.say(f"placement and routing, seed {attempt}")
            timing = self._route(attempt)
            clock, slowest = min(timing.items(), key=lambda item: item[1].reached / item[1].wanted)
            if slowest.reached >= slowest.wanted:
                break
            self.say(f"{clock} reaches {slowest.reached:.2f} of {slowest.wanted:.2f} MHz")
            if index == len(seeds) - 1:
                raise fit.too_slow(self.board, clock, slowest, seeds)
        self.say("bitstream")
        self._run(self.packing, "packing")
        return self._account(attempt, timing)

    def _run(self, command: list[str], step: str) -> None:
        try:
            self.tools[command[0]].run(command[1:], self.out, self.out / f"{step}.log")
        except ToolFailed as failure:
            raise ResourceError(f"{command[0]} failed, its log is {self.out / f'{step}.log'}: {failure}") from None

    def _route(self, seed: int) -> dict[str, Timing]:
        self._place([*self.routing, "--seed", str(seed), "--report", "top.pnr.json", "--timing-allow-fail"])
        return clocks(self.out / "top.pnr.json")

    def _pack(self) -> dict[str, Timing]:
        written = next(i for i, word in enumerate(self.routing) if word in _ROUTED)
        self._place([*self.routing[:written], *self.routing[written + 2:], "--pack-only"])
        return {}

    def _place(self, command: list[str]) -> None:
        log = self.out / "top.tim"
        log.unlink(missing_ok=True)
        try:
            self._run(command, "routing")
        except ResourceError:
            cells = usage(log.read_text(), self.board.family) if log.exists() else None
            if cells is None:
                raise
            raise fit.shortage(self.design, self.board, cells) from None

    def _account(self, seed: int, timing: dict[str, Timing]) -> Build:
        cells = usage((self.out / "top.tim").read_text(), self.board.family)
        assert cells is not None  # it was routed
        needed, used = multipliers(self.design.hardware)["total"], cells.used
        if used["dsp"] < needed:
            raise ResourceError(f"all {needed} multipliers must become multiplier blocks; the tools ({self._versions}) "
                                f"made only {used['dsp']}")
        return Build(
            path=str(self.out / self._bitstream()), board=self.board.name, network=_network(self.design),
            lanes=self.design.hardware.lanes, hardware_id=self.design.hardware.hardware_id,
            clock_mhz=self.clock / 1e6, fmax_mhz={k: t.reached for k, t in timing.items()}, lut=used["lut"],
            ff=flip_flops(self.out / "top.cells.json"), dsp=used["dsp"], bram=used["bram"],
            spram=used.get("spram", 0), available=dict(cells.available), seed=seed, baud=BAUD, seconds=0.0,
            tools={name: tool.version for name, tool in self.tools.items()})

    @property
    def _versions(self) -> str:
        return ", ".join(tool.version for tool in self.tools.values())

    def _bitstream(self) -> str:
        return next(word for word in self.packing if word.endswith((".bit", ".bin")))


class Survey:
    """One netlist placed and routed with many seeds, for what it reaches, or packed only: no bitstream, no clock to be
    met.

    Netlist and results are kept in the cache, under ``key``: its content and the tools' versions.

    Parameters
    ----------
    design : Design
    clock : float, optional
        Hz that the tools aim at; the board's usual clock if None.

    Raises
    ------
    ResourceError
        If the design does not fit, or a tool is missing or fails.
    """

    def __init__(self, design: Design, clock: float | None = None):
        target = find_board(design.report["board"])
        fit.check(design, target)
        pll = find(target.family, target.oscillator, clock or target.clock)
        self._plan = _plan(design, target, BAUD, pll)
        commands = json.loads(self._plan.files["build_top.json"])["commands"]
        tools = find_tools([command[0] for command in commands])
        self.key = _key(self._plan, tools, ())
        self._work = cache() / "surveys" / self.key
        self._tools = _Run(design, target, pll.output if pll else target.oscillator, self._work.resolve(), commands,
                           tools, lambda text: None)

    def route(self, seed: int) -> Build:
        """What a seed comes to; ``path`` names the netlist, ``seconds`` are processor time: synthesis and this seed."""
        return self._kept(f"seed{seed}", seed, lambda: self._tools._route(seed))

    def pack(self) -> Build:
        """Cells as they are before placement: no clock, and the count of a routed build but for what routing adds."""
        return self._kept("packed", 0, self._tools._pack)

    def _kept(self, name: str, seed: int, made: Callable[[], dict[str, Timing]]) -> Build:
        """A result in the cache, or else made of the netlist, which may have to be, too."""
        kept, netlist = self._work / f"{name}.json", self._work / "netlist.json"
        if kept.exists():
            return Build.load(kept)
        if not netlist.exists():
            self._work.mkdir(parents=True, exist_ok=True)
            self._plan.extract(self._work)
            began = _tools_time()
            self._tools._run(self._tools.synthesis, "synthesis")
            netlist.write_text(json.dumps({"seconds": _tools_time() - began}) + "\n")
        began = _tools_time()
        timing = made()
        seconds = json.loads(netlist.read_text())["seconds"] + _tools_time() - began
        result = dataclasses.replace(self._tools._account(seed, timing), path=str(self._work / "top.json"),
                                     seconds=round(seconds, 1))
        result.save(kept)
        return result


def _tools_time() -> float:
    """Processor seconds of all tools that have ended: what a busy machine does not change much."""
    times = os.times()
    return times.children_user + times.children_system
