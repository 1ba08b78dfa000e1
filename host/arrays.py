"""Checked arrays from the user's data."""

import numpy as np

from echolith.compiler.costs import encoded
from echolith.compiler.damping import FACTORS
from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.hints import input_hint, target_hint
from echolith.compiler.masks import missing, placed
from echolith.compiler.plain import plain, shaped

__all__ = ["inputs", "targets"]


def inputs(design: Design, x) -> np.ndarray:
    """(batch, steps, inputs) as the chip reads them."""
    damping, steps, wide = design.damping, design.dynamics.steps, design.inputs
    if damping is not None:
        steps, wide = steps // damping.substeps, wide - FACTORS
    found = shaped("X", x, (None, steps, wide), "(batch, steps, inputs)", RangeError,
                   lambda found: input_hint(found, wide, steps), " for this design")
    return found if damping is None else damping.inputs(found)


def targets(design: Design, y, batch: int, mask=None) -> np.ndarray:
    """(batch, read-outs, outputs) from (batch, outputs), or (batch, steps, outputs) with the cost at every step; class
    numbers, without the last axis, become one-hot. NaN where the mask is 0."""
    every, kind = design.dynamics.cost_at == "every", design.cost.targets if design.cost else "values"
    y, absent = plain("Y", y, RangeError), None
    if mask is not None:
        y, absent = _unmasked(design, kind, y, plain("mask", mask, RangeError))
    shape, text = (batch,), "batch"
    if every:
        shape, text = (*shape, design.dynamics.steps), f"{text}, steps"
    if kind != "classes":
        shape, text = (*shape, design.outputs), f"{text}, outputs"
    found = shaped("Y", y, shape, f"({text})", RangeError,
                   lambda found: target_hint(found, kind, design.outputs, every), " for this design")
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
