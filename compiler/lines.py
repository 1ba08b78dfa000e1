"""Lines of the user's source, and the refusals that name them."""

import linecache
import os
import sys
import traceback
from types import FrameType, TracebackType

import numpy as np
import torch

from echolith.compiler.errors import CompileError

__all__ = ["calling", "raising", "refusal", "source"]

_FOREIGN = tuple(os.path.join(package.__path__[0], "") for package in (torch, np))
_LONGEST = 120  # characters of a line
_OWN = os.path.join(os.path.dirname(__file__), "")


def refusal(method: str, line: str | None, what: str, remedy: str, value: object) -> CompileError:
    """The error for a model that cannot be lowered.

    ``what`` names the operation, ``line`` is its source as ``file.py:LINE: text``, ``value`` is what was found.
    """
    where = f", at `{line}`" if line else ""
    return CompileError(f"{method}: {what}{where}; {remedy}, not {value}")


def source(file: str, number: int) -> str:
    """``file.py:LINE: text``; empty for lines of this package, which no user wrote."""
    if file.startswith(_OWN):
        return ""
    text = linecache.getline(file, number).strip()
    return f"{os.path.basename(file)}:{number}: {text if len(text) <= _LONGEST else text[:_LONGEST] + ' ...'}"


def calling() -> FrameType:
    """The innermost frame of the user's code, or the outermost of all, where a torch function is called."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FOREIGN):
        frame = frame.f_back
    return frame


def raising(tb: TracebackType | None) -> str | None:
    """The innermost line of the user's code in a traceback."""
    frames = [f for f in traceback.extract_tb(tb) if not f.filename.startswith((*_FOREIGN, _OWN))]
    return source(frames[-1].filename, frames[-1].lineno or 0) if frames else None
