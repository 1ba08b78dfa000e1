"""Weights that were trained elsewhere: a ``state_dict``, or a ``.safetensors`` file. Never a pickle."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from echolith.compiler.errors import FileError, RangeError
from echolith.host.arrays import plain

__all__ = ["Weights", "merged", "read"]

Weights = Mapping[str, object] | str | os.PathLike


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Arrays by name from a safetensors file."""
    if Path(path).suffix != ".safetensors":
        raise FileError("weights are read from .safetensors, never from a pickle: save them with "
                        f"safetensors.torch.save_file(model.state_dict(), ...), not as {path}")
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise FileError(f"there is no file {path}") from error
    except (OSError, SafetensorError, TypeError, AttributeError, KeyError) as error:
        raise FileError(f"{path} is truncated, damaged, or of a type that numpy does not have: {error}") from error


def merged(base: Mapping[str, np.ndarray], weights: Weights) -> dict[str, np.ndarray]:
    """``base`` with arrays or tensors replaced by name, as float64."""
    values = dict(base)
    for name, value in (weights if isinstance(weights, Mapping) else read(weights)).items():
        array = plain(value)
        if name not in values:
            raise RangeError(f"parameter names are {', '.join(sorted(values))}, not {name!r}")
        if array.shape != values[name].shape:
            raise RangeError(f"{name} must have shape {values[name].shape}, not {array.shape}")
        if not np.isfinite(array).all():
            raise RangeError(f"{name} must be finite, not {array[~np.isfinite(array)][0]}")
        values[name] = array
    return values
