"""The user's model file: run it, call its functions, and say of what they raise in which line it was."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TypeVar

from echolith.compiler.errors import CompileError, EcholithError, FileError
from echolith.host.cli_output import remedy

__all__ = ["call", "execute"]

T = TypeVar("T")


def execute(path: str) -> ModuleType:
    """The file, run."""
    target = Path(path).resolve()
    if not target.is_file():
        raise FileError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(target.stem, target)
    if spec is None or spec.loader is None:
        raise FileError(f"{path} cannot be run as Python")
    module, loader = importlib.util.module_from_spec(spec), spec.loader
    sys.path.insert(0, str(target.parent))
    try:
        _told(lambda: loader.exec_module(module), path, "")
    finally:
        sys.path.remove(str(target.parent))
    return module


def call(function: Callable[[], T], path: str, name: str) -> T:
    """What a function of the file returns."""
    return _told(function, path, f"{name}()")


def _told(run: Callable[[], T], path: str, what: str) -> T:
    try:
        return run()
    except EcholithError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        if remedy(error):
            raise
        if what and error.__traceback__ is not None and error.__traceback__.tb_next is None:  # never entered
            raise CompileError(f"{what} of {path} must work without arguments: {error}") from error
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise CompileError(f"{_place(error, path)}, {what}{' ' * bool(what)}does not run: {said}") from error


def _place(error: BaseException, path: str) -> str:
    """The innermost line of the user's file in a traceback; without one, where the traceback ends."""
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return f"{_short(error.filename, path)}, line {error.lineno}"
    frames = list(_frames(error.__traceback__))
    own = [frame for frame in frames if frame[0] == str(Path(path).resolve())]
    file, line = (own or frames)[-1]
    return f"{_short(file, path)}, line {line}"


def _short(file: str, path: str) -> str:
    """``path`` as the user wrote it, if that is the file."""
    return path if file == str(Path(path).resolve()) else file


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
