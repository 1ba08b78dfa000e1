"""Refusals that were found after capture name the method's place in the user's source, as those of capture name the
line of the operator."""

import inspect
from pathlib import Path

from echolith.compiler.errors import CompileError

__all__ = ["located"]

_METHODS = ("energy", "kinetic", "cost", "predict")


def located(error: CompileError, model: object) -> CompileError:
    """The error with the place of the method that it begins with; as it is if it has one or the source is not there."""
    text = str(error)
    method, _, rest = text.partition(":")
    function = getattr(model, method, None) if method in _METHODS and " at `" not in text else None
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(function))  # type: ignore[arg-type]
    except (OSError, TypeError):
        return error
    code = inspect.getsourcefile(inspect.unwrap(function))  # type: ignore[arg-type]
    place = f", at `{Path(code or '').name}:{first}: {lines[0].strip()}`"
    end = min((i for i in (rest.find("; "), rest.find(", not ")) if i >= 0), default=len(rest))
    return CompileError(f"{method}:{rest[:end]}{place}{rest[end:]}")
