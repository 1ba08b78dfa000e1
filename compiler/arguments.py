"""What `compile` is called with, before anything is done with it."""

import inspect
from collections.abc import Mapping
from types import UnionType
from typing import Any

import torch

from echolith.compiler.design import Design
from echolith.compiler.dynamics import ROWS, Leapfrog
from echolith.compiler.errors import CompileError
from echolith.compiler.lanes import MOST
from echolith.compiler.learning import AnyRule
from echolith.compiler.scalars import whole
from echolith.compiler.search import Wanted
from echolith.compiler.stack import Stack

__all__ = ["check_arguments"]


def check_arguments(model: object, dynamics: object, rule: object, calibrate: object, steps: object, lanes: object,
                    precision: object, samples: object, like: object) -> None:
    """Raises CompileError for arguments of other types and values than `compile` describes."""
    _instance("model", model, torch.nn.Module, "a torch.nn.Module")
    _initialised(model)
    _instance("dynamics", dynamics, Leapfrog, "el.Leapfrog(dt=0.25)")
    if rule is not None:
        _instance("rule", rule, AnyRule, "el.HamiltonianEcho(), another rule, or None")
    if calibrate is not None:
        _given(calibrate)
    if steps is not None and whole(steps, 1, ROWS) is None:
        raise CompileError(f"steps must be a whole number of input rows, from 1 to {ROWS}, not {steps!r}")
    if lanes is not None and not (isinstance(lanes, str) and lanes == "auto") and whole(lanes, 1, MOST) is None:
        raise CompileError(f'lanes must be a whole number from 1 to {MOST} or "auto", not {lanes!r}')
    _precision(precision)
    if samples is not None and whole(samples, 0) is None:
        raise CompileError(f"samples must be a whole number, not negative, not {samples!r}")
    if like is not None:
        _instance("like", like, Design, "a compiled Design")


def _instance(name: str, value: object, kind: type | UnionType, text: str) -> None:
    if isinstance(value, kind):
        return
    if inspect.isclass(value) and issubclass(value, kind):
        raise CompileError(f"{name} must be an object, write {value.__name__}(...), not the class {value.__name__}")
    found = value.__name__ if inspect.isclass(value) else type(value).__name__
    raise CompileError(f"{name} must be {text}, not {value!r}" if isinstance(value, str | int | float | None)
                       else f"{name} must be {text}, not {found}")


def _initialised(model: Any) -> None:
    """A module whose own __init__ called that of its class."""
    if ("output" if isinstance(model, Stack) else "_parameters") not in vars(model):
        name = type(model).__name__
        raise CompileError(f"{name}.__init__ must call super().__init__() before all else, not {name} without it")


def _given(calibrate: Any) -> None:
    """Only the pair; its arrays are checked against the model."""
    if isinstance(calibrate, tuple | list) and len(calibrate) in (2, 3):
        return
    found = f"{type(calibrate).__name__} of {len(calibrate)}" if isinstance(calibrate, tuple | list) else type(
        calibrate).__name__
    raise CompileError("calibrate must be (X, Y) or (X, Y, mask), with (X, None) for inference alone, not a "
                       f"{found}")


def _precision(precision: object) -> None:
    if isinstance(precision, Wanted) or isinstance(precision, str) and precision in ("auto", "packed"):
        return
    if not isinstance(precision, Mapping):
        raise CompileError('precision must be "auto", "packed", a mapping of names to formats, or a Wanted, not '
                           f"{precision!r:.60}")
    for name, text in precision.items():
        if not isinstance(text, str):
            raise CompileError(f'precision: {name} must be spelled as text, like "Q5.12", not {text!r}')
