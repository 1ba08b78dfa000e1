"""Checked arrays from the user's data."""

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.masks import masked

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
    """(batch, read-outs, outputs) from (batch, outputs), or (batch, steps, outputs) with the cost at every step; NaN
    where the mask is 0."""
    y, known = plain(y), None
    if mask is not None:
        known = ~np.isnan(masked(np.zeros(y.shape), plain(mask), RangeError))
        if design.missing is None and not known.all():
            raise RangeError("this design was compiled without masks; compile it with calibrate=(X, Y, mask), not "
                             f"{np.count_nonzero(~known)} masked targets")
        y = np.where(known, y, 0.0)
    if design.dynamics.cost_at == "every":
        y = _checked("Y", y, (batch, design.dynamics.steps, design.outputs), "(batch, steps, outputs)")
    else:
        y = _checked("Y", y, (batch, design.outputs), "(batch, outputs)")
    y = y if known is None or known.all() else np.where(known, y, np.nan)
    return y if design.dynamics.cost_at == "every" else y[:, None]


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
