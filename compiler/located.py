"""Refusals that were found after capture name the method and its place in the user's source, as those of capture name
the line of the operator."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from echolith.compiler.blame import steep_line
from echolith.compiler.errors import CompileError
from echolith.compiler.lines import source

__all__ = ["located", "within"]

_METHODS = ("energy", "kinetic", "cost", "predict")
_STEEP = "must be finite"


@contextmanager
def within(method: str) -> Iterator[None]:
    """Refusals inside are of ``method``, unless they name one."""
    try:
        yield
    except CompileError as error:
        if str(error).partition(":")[0] in _METHODS:
            raise
        raise CompileError(f"{method}: {error}") from error


def located(error: CompileError, model: torch.nn.Module) -> CompileError:
    """The error with the place of the method that it begins with, of the operator if that can be told; as it is if it
    has one or the source is not there."""
    text = str(error)
    method, _, rest = text.partition(":")
    if method not in _METHODS or " at `" in text:
        return error
    line = steep_line(model, method) if _STEEP in rest else None
    line = line or _definition(getattr(model, method, None))
    if line is None:
        return error
    end = min((i for i in (rest.find("; "), rest.find(", not ")) if i >= 0), default=len(rest))
    return CompileError(f"{method}:{rest[:end]}, at `{line}`{rest[end:]}")


def _definition(function: object) -> str | None:
    """Where a method begins."""
    try:
        function = inspect.unwrap(function)  # type: ignore[arg-type]
        lines, first = inspect.getsourcelines(function)  # type: ignore[arg-type]
        file = inspect.getsourcefile(function)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return None
    offset = next((i for i, text in enumerate(lines) if text.lstrip().startswith(("def ", "async def "))), 0)
    return source(file or "", first + offset)
