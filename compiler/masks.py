"""Targets that are not there: a mask in the user's arrays, one reserved word on the chip. numpy only."""

import numpy as np

from echolith.compiler.errors import EcholithError

__all__ = ["filled", "missing", "placed", "reserved"]


def reserved(bits: int) -> int:
    """The target word of ``bits`` that stands for none: its cost derivative is 0."""
    return -(1 << (bits - 1))


def missing(y: np.ndarray, mask: np.ndarray, whole: bool, error: type[EcholithError]) -> np.ndarray:
    """Which of the user's targets, outputs or class numbers on the last axis, are not there: where the ``mask``, of
    their shape or without the last axis, is 0. ``whole`` refuses to mask single outputs."""
    if mask.shape not in (y.shape, y.shape[:-1]):
        raise error(f"mask must have shape {y.shape[:-1]}, one value per target, or that of Y, not {mask.shape}")
    strange = mask[(mask != 0) & (mask != 1)]
    if strange.size:
        raise error(f"mask must hold ones, and zeros where there is no target, not {strange[0]:g}")
    found = np.broadcast_to((mask if mask.shape == y.shape else mask[..., None]) == 0, y.shape)
    if whole and (found.any(axis=-1) != found.all(axis=-1)).any():
        raise error("mask must leave out whole targets of a softmax, not single outputs")
    return found


def filled(y: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Targets with others that are there in place of those that are missing."""
    there = ~missing.any(axis=-1)
    return np.where(missing, y[there][0] if there.any() else y[~missing][0], y)


def placed(missing: np.ndarray, classes: bool, every: bool, outputs: int) -> np.ndarray:
    """(batch, read-outs, outputs) from what is missing in the user's shape."""
    found = missing[..., None] if classes else missing
    found = found if every else found[:, None]
    return np.broadcast_to(found, (*found.shape[:-1], outputs))
