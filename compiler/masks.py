"""Targets that are not there: a mask or NaN in the user's arrays, one reserved word on the chip. numpy only."""

import numpy as np

from echolith.compiler.errors import EcholithError

__all__ = ["filled", "masked", "reserved"]


def reserved(data_width: int) -> int:
    """The target word that stands for none: its cost derivative is 0."""
    return -(1 << (data_width - 1))


def masked(y: np.ndarray, mask: np.ndarray, error: type[EcholithError]) -> np.ndarray:
    """Targets (..., outputs) with NaN where the ``mask``, (...) or of their own shape, is 0."""
    if mask.shape not in (y.shape, y.shape[:-1]):
        raise error(f"mask must have shape {y.shape[:-1]}, one value per target, or that of Y, not {mask.shape}")
    strange = mask[(mask != 0) & (mask != 1)]
    if strange.size:
        raise error(f"mask must hold ones, and zeros where there is no target, not {strange[0]:g}")
    return np.where((mask if mask.shape == y.shape else mask[..., None]) == 1, y, np.nan)


def filled(y: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Targets with one that is there in place of those that are missing."""
    return np.where(missing, y[~missing][0], y)
