"""Both bitstreams, built beside the learning: one process after the other, so that one core stays free."""

import json
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
        Board name to the path of a saved design; built in this order.
    out : Path
        Directories named like the boards are made here.

    Attributes
    ----------
    results : dict
        By board: what ``echolith build --json`` printed, or {"error": text}; ``seconds`` in both.
    """

    def __init__(self, designs: dict[str, Path], out: Path):
        self.results: dict[str, dict] = {}
        self._designs, self._out = designs, out
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Builds":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        self._thread.join()

    @property
    def current(self) -> str | None:
        """The board being built, or None when all are done."""
        return next((name for name in self._designs if name not in self.results), None)

    def wait(self, seconds: float) -> bool:
        """True as soon as all are done, False after ``seconds``."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        for name, path in self._designs.items():
            if self._stopped:
                return
            self.results[name] = self._build(path, self._out / name)

    def _build(self, path: Path, out: Path) -> dict:
        begun = time.monotonic()
        command = [sys.executable, "-m", "echolith.host.cli", "build", str(path), str(out), "--json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        stdout, stderr = self._process.communicate()
        try:
            found = json.loads(stdout)
        except ValueError:
            found = {"error": {"message": stderr.strip()[-1000:] or f"exit code {self._process.returncode}"}}
        if "error" in found:
            found = {"error": found["error"]["message"]}
        return {**found, "seconds": time.monotonic() - begun}
