"""Checked arrays from the user's data."""

import numpy as np

from echolith.compiler.costs import encoded
from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.masks import missing, placed

__all__ = ["inputs", "plain", "targets"]


def plain(value) -> np.ndarray:
    """float64 from anything array-like, a torch tensor included (without importing torch)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value, np.float64)


def inputs(design: Design, x) -> np.ndarray:
    """(batch, steps, inputs)."""
    return _checked("X", x, (None, design.dynamics.steps, design.inputs), "(batch, steps, inputs)")


def targets(design: Design, y, batch: int, mask=None) -> np.ndarray:
    """(batch, read-outs, outputs) from (batch, outputs), or (batch, steps, outputs) with the cost at every step; class
    numbers, without the last axis, become one-hot. NaN where the mask is 0."""
    every, kind = design.dynamics.cost_at == "every", design.cost.targets if design.cost else "values"
    y, absent = (plain(y), None) if mask is None else _unmasked(design, kind, plain(y), plain(mask))
    shape, text = (batch,), "batch"
    if every:
        shape, text = (*shape, design.dynamics.steps), f"{text}, steps"
    if kind != "classes":
        shape, text = (*shape, design.outputs), f"{text}, outputs"
    found = _checked("Y", y, shape, f"({text})")
    found = encoded(kind, found if every else found[:, None], design.outputs, RangeError)
    if absent is None or not absent.any():
        return found
    return np.where(placed(absent, kind == "classes", every, design.outputs), np.nan, found)


def _unmasked(design: Design, kind: str, y: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets with valid ones in place of the missing ones, and which are missing."""
    softmax = design.cost is not None and design.cost.inside is not None
    absent = missing(y, mask, softmax and kind != "classes", RangeError)
    if design.missing is None and absent.any():
        raise RangeError("this design was compiled without masks; compile it with calibrate=(X, Y, mask), not "
                         f"{np.count_nonzero(absent)} masked targets")
    return np.where(absent, np.eye(y.shape[-1])[0] if kind == "shares" else 0.0, y), absent


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
