"""Samples and targets as data words."""

import warnings

import numpy as np

from echolith.compiler.design import Design

__all__ = ["outputs", "words"]


def words(design: Design, x: np.ndarray, y: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(batch, steps, inputs) and (batch, read-outs, outputs) floats -> int64 words of the hardware's bits.

    Values outside the format are clipped, with a warning; NaN is the word for a missing target. Without targets,
    zeros."""
    if y is None:
        y = np.zeros((len(x), design.result_rows, design.outputs))
    if design.missing is None:
        return _round(design, "inputs", x, "input"), _round(design, "targets", y, "target")
    known = _round(design, "targets", np.nan_to_num(y), "target", design.missing + 1)
    return _round(design, "inputs", x, "input"), np.where(np.isnan(y), design.missing, known)


def _round(design: Design, name: str, values: np.ndarray, which: str, lowest: int | None = None
           ) -> np.ndarray:
    scale, limit = 2.0 ** design.fractions[which], 1 << (design.hardware.word(which) - 1)
    lowest = -limit if lowest is None else lowest
    rounded = np.rint(np.asarray(values, np.float64) * scale)
    beyond = int(np.count_nonzero((rounded < lowest) | (rounded > limit - 1)))
    if beyond:
        warnings.warn(f"{beyond} {name} are outside the calibrated range and were clipped to "
                      f"[{lowest / scale:g}, {(limit - 1) / scale:g}]; calibrate with data that covers them",
                      stacklevel=3)
    return np.clip(rounded, lowest, limit - 1).astype(np.int64)


def outputs(design: Design, y: np.ndarray) -> np.ndarray:
    """Output words as floats; (batch, outputs), or with a time axis if the cost is at every step."""
    frac = design.fractions["output"] if design.hardware.cost is not None else design.fractions["state"]
    real = y * 2.0**-frac
    return real if design.dynamics.cost_at == "every" else real[:, 0]
