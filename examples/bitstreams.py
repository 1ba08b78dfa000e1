"""Both bitstreams, built beside the learning in processes of their own, which leave it the right of way."""

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

__all__ = ["Builds"]


class Builds:
    """Bitstreams of saved designs, made in the background. Use as a context manager: leaving it stops them.

    Parameters
    ----------
    designs : dict
        Board name to the path of a saved design.
    out : Path
        Directories named like the boards are made here.

    Attributes
    ----------
    results : dict
        By board, once it is done: what ``echolith build --json`` printed, or {"error": text}; ``seconds`` in both.
    """

    def __init__(self, designs: dict[str, Path], out: Path):
        self.results: dict[str, dict] = {}
        self._processes = {name: _start(path, out / name) for name, path in designs.items()}
        self._threads = [threading.Thread(target=self._collect, args=(name,), daemon=True) for name in designs]

    def __enter__(self) -> "Builds":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for thread in self._threads:
            thread.join()

    @property
    def waiting(self) -> list[str]:
        """The boards that are still being built."""
        return [name for name in self._processes if name not in self.results]

    def wait(self, seconds: float) -> bool:
        """True as soon as all are done, False after ``seconds``."""
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not self.waiting

    def _collect(self, name: str) -> None:
        begun, process = time.monotonic(), self._processes[name]
        stdout, stderr = process.communicate()
        try:
            found = json.loads(stdout)
        except ValueError:
            found = {"error": {"message": stderr.strip()[-1000:] or f"exit code {process.returncode}"}}
        if "error" in found:
            found = {"error": found["error"]["message"]}
        self.results[name] = {**found, "seconds": time.monotonic() - begun}


def _start(design: Path, out: Path) -> "subprocess.Popen[str]":
    nice = ["nice"] if shutil.which("nice") else []
    command = [*nice, sys.executable, "-m", "echolith", "build", str(design), str(out), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
