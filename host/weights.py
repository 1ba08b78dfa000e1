"""Weights that were trained elsewhere: a ``state_dict``, or a ``.safetensors`` file. Never a pickle."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from echolith.compiler.derived import completed
from echolith.compiler.design import Design
from echolith.compiler.errors import FileError, RangeError
from echolith.compiler.layout import part
from echolith.compiler.plain import plain

__all__ = ["Weights", "checked", "merged", "read"]

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
    """`checked`, and raises RangeError for what the words of the chip cannot hold."""
    given = _mapping(weights)
    values = checked(design, base, given)
    changed = {design.parameters[name] for name in given}
    for made in design.derived:
        if any(operand.parameter in changed for operand in made.operands.values()):
            changed.add(made.name)
    complete = completed(design.derived, values)
    for names, found, limit in _held(design, complete):
        largest = float(found.flat[np.abs(found).argmax()])
        if changed.intersection(names) and not abs(largest) <= limit:
            raise RangeError(f"{' + '.join(names)} must be from -{limit:g} to {limit:g}, as far as the words of this "
                             f"design go; compile the model with these weights, not {largest:g}")
    return values


def checked(design: Design, base: Mapping[str, np.ndarray], weights: Weights) -> dict[str, np.ndarray]:
    """``base`` with arrays or tensors replaced by their names in the model, as float64."""
    values = dict(base)
    for name, value in _mapping(weights).items():
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


def _held(design: Design, values: Mapping[str, np.ndarray]) -> Iterator[tuple[tuple[str, ...], np.ndarray, float]]:
    """Parameters that words are the sum of, that sum, and what it may reach either way."""
    full = 2.0 ** (2 * design.hardware.width - 1)
    for p in design.placements:
        parts = [part(np.asarray(values[n], np.float64), w) for n, w in zip(p.parameters, p.windows, strict=True)]
        shape = design.block(p.block).rows, p.columns
        parts = [(x.T if t else x).reshape(shape) for x, t in zip(parts, p.transposed, strict=True)]
        yield p.parameters, np.sum(parts, axis=0), full * 2.0**-p.fraction / abs(p.scale)
    for v in design.vectors:
        yield (v.parameter,), np.asarray(values[v.parameter], np.float64), full * 2.0**-v.fraction


def _mapping(weights: Weights) -> Mapping[str, object]:
    """Read, if it is a path."""
    if not isinstance(weights, Mapping | str | os.PathLike):
        raise RangeError(f"weights must be a state_dict or the path of a .safetensors file, not {weights!r:.60}")
    return weights if isinstance(weights, Mapping) else read(weights)
