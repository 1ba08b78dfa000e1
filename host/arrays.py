"""Checked arrays from the user's data."""

import numpy as np

from echolith.compiler.costs import encoded
from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError

__all__ = ["inputs", "plain", "targets"]


def plain(value) -> np.ndarray:
    """float64 from anything array-like, a torch tensor included (without importing torch)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value, np.float64)


def inputs(design: Design, x) -> np.ndarray:
    """(batch, steps, inputs)."""
    return _checked("X", x, (None, design.dynamics.steps, design.inputs), "(batch, steps, inputs)")


def targets(design: Design, y, batch: int) -> np.ndarray:
    """(batch, read-outs, outputs) from (batch, outputs), or (batch, steps, outputs) with the cost at every step; class
    numbers, without the last axis, become one-hot."""
    every, kind = design.dynamics.cost_at == "every", design.cost.targets if design.cost else "values"
    shape, text = (batch,), "batch"
    if every:
        shape, text = (*shape, design.dynamics.steps), f"{text}, steps"
    if kind != "classes":
        shape, text = (*shape, design.outputs), f"{text}, outputs"
    found = _checked("Y", y, shape, f"({text})")
    return encoded(kind, found if every else found[:, None], design.outputs, RangeError)


def _checked(name: str, value, shape: tuple[int | None, ...], text: str) -> np.ndarray:
    array = plain(value)
    if array.ndim != len(shape) or any(w is not None and w != g for w, g in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise RangeError(f"{name} must have shape {text} = ({wanted}) for this design, not {array.shape}")
    if not array.size:
        raise RangeError(f"{name} must hold at least one sample, not {array.shape}")
    if not np.isfinite(array).all():
        place = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise RangeError(f"{name} must be finite; {name}{place} is {array[tuple(place)]}")
    return array
