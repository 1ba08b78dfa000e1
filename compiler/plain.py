"""Arrays of real numbers from whatever the user gives: numpy arrays, torch tensors, lists. Imports no torch."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from echolith.compiler.errors import EcholithError

__all__ = ["plain", "shaped"]

_LARGEST = 1e9  # far beyond any word


def plain(name: str, value: Any, error: type[EcholithError]) -> np.ndarray:
    """``value`` as float64; raises ``error`` for what holds no real numbers."""
    try:
        value = value.detach().cpu() if hasattr(value, "detach") else value
        array = np.asarray(value.double() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value)
    except Exception as cause:  # ragged lists, tensors that need gradients or live elsewhere
        text = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise error(f"{name} must be an array of numbers, not a {type(value).__name__} ({text})") from cause
    numbers = array.dtype == object and array.size and all(isinstance(v, Real) for v in array.flat)
    if array.dtype.kind not in "biuf" and not numbers:
        raise error(f"{name} must be an array of real numbers, not {_kind(array)}")
    if np.ma.is_masked(value):
        raise error(f"{name} must be a plain array; give the mask apart, (X, Y, mask), not a masked array")
    try:
        return array.astype(np.float64)
    except OverflowError as cause:  # whole numbers of hundreds of digits
        raise error(f"{name} must stay within {_LARGEST:g}; divide it by a power of two, not a number beyond float64"
                    ) from cause


def _kind(array: np.ndarray) -> str:
    """What an array holds instead."""
    if array.dtype == object and array.size:
        return repr(array.flat[0]) if array.ndim == 0 else f"objects such as {array.flat[0]!r:.40}"
    return {"U": "texts", "S": "bytes", "c": "complex numbers"}.get(array.dtype.kind, str(array.dtype))


def shaped(name: str, value: Any, shape: Sequence[int | None], text: str, error: type[EcholithError],
           hint: Callable[[tuple[int, ...]], str] = lambda found: "", of: str = "") -> np.ndarray:
    """``value`` as finite float64 of ``shape``, in which None fits any size; ``text`` names the axes, ``of`` what the
    shape belongs to, ``hint`` what to do about the shape that was found instead."""
    array = plain(name, value, error)
    if array.ndim != len(shape) or any(w is not None and w != g for w, g in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise error(f"{name} must have shape {text} = ({wanted}){of}{hint(array.shape)}, not {array.shape}")
    if not array.size:
        raise error(f"{name} must hold at least one sample and one step, not shape {array.shape}")
    if not np.isfinite(array).all():
        place = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        raise error(f"{name} must be finite; {name}{place} is {array[tuple(place)]}")
    if (largest := float(np.abs(array).max())) > _LARGEST:
        raise error(f"{name} must stay within {_LARGEST:g}; divide it by a power of two, not {largest:g}")
    return array
