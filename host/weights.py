"""Weights that were trained elsewhere: a ``state_dict``, or a ``.safetensors`` file. Never a pickle."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from echolith.compiler.design import Design
from echolith.compiler.errors import FileError, RangeError
from echolith.compiler.plain import plain

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


def merged(design: Design, base: Mapping[str, np.ndarray], weights: Weights) -> dict[str, np.ndarray]:
    """``base`` with arrays or tensors replaced by their names in the model, as float64."""
    if not isinstance(weights, Mapping | str | os.PathLike):
        raise RangeError(f"weights must be a state_dict or the path of a .safetensors file, not {weights!r:.60}")
    values = dict(base)
    for name, value in (weights if isinstance(weights, Mapping) else read(weights)).items():
        kept = design.parameters.get(name)
        if kept is None:
            raise RangeError(f"parameter names are {', '.join(sorted(design.parameters))}, not {name!r}")
        array = plain(name, value, RangeError)
        if array.shape != values[kept].shape:
            raise RangeError(f"{name} must have shape {values[kept].shape}, not {array.shape}")
        if not np.isfinite(array).all():
            raise RangeError(f"{name} must be finite, not {array[~np.isfinite(array)][0]}")
        known = kept in design.settable or kept in design.unused
        if not known and not np.allclose(array, values[kept], rtol=1e-6):
            raise RangeError(f"{name} is frozen and part of the program: compile the model with its new value, not "
                             f"{array.flat[np.abs(array - values[kept]).argmax()]:g}")
        values[kept] = array
    return values
