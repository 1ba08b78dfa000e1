"""Synthesis tools: the user's own if named in the environment, else those of the YoWASP packages."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from echolith.compiler.errors import ResourceError

__all__ = ["Tool", "ToolFailed", "find"]

# Which package brings a tool, if it does not follow from its name.
_PACKAGES = {"ecppack": "nextpnr-ecp5", "icepack": "nextpnr-ice40"}


class ToolFailed(Exception):
    """A tool returned an error; the text is the end of what it said."""


class Tool:
    """``name`` as in a build plan: yosys, nextpnr-ecp5, ecppack, nextpnr-ice40, icepack.

    The variable YOSYS, NEXTPNR_ECP5, ... names a native one.

    Raises
    ------
    ResourceError
        If neither is there.
    """

    def __init__(self, name: str):
        variable = name.upper().replace("-", "_")
        native = os.environ.get(variable)
        self.name, self._package = name, f"yowasp-{_PACKAGES.get(name, name)}"
        if native:
            self.command = shutil.which(native)
            if self.command is None:
                raise ResourceError(f"{variable} must name an executable, or be unset to use {self._package}, not "
                                    f"{native!r}")
            self.version = _first_line(self.command)
            return
        # The script beside this interpreter, whether or not its environment is active.
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        self.command = shutil.which(f"yowasp-{name}", path=path)
        if self.command is None:
            raise ResourceError(f"{name} is missing: pip install {self._package}, or set {variable} to a native {name}")
        self.version = f"{self._package} {_installed(self._package)}"

    def run(self, arguments: list[str], folder: Path, log: Path) -> None:
        """Run in ``folder``; what it says goes to ``log``."""
        with log.open("w") as file:
            done = subprocess.run([self.command, *arguments], cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        if done.returncode:
            raise ToolFailed(log.read_text(errors="replace")[-2000:])


def find(names: list[str]) -> dict[str, Tool]:
    """All tools by name, or one error about the first missing."""
    return {name: Tool(name) for name in names}


def _first_line(command: str) -> str:
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    return ((done.stdout or done.stderr).splitlines() or [""])[0]


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"
