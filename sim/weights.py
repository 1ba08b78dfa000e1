"""Float parameters to and from the words of blocks and vector banks. numpy only; used by every session."""

from collections.abc import Mapping

import numpy as np

from echolith.compiler.design import Design, Hardware
from echolith.compiler.layout import masters
from echolith.compiler.steps import part
from echolith.sim import arith

__all__ = ["Words", "from_values", "gradients", "load", "seen", "to_values"]

Words = dict[str, np.ndarray]  # by block name, (rows, columns), and "vector0", ...: (length,)


def from_values(design: Design, values: Mapping[str, np.ndarray]) -> Words:
    """Master words of all parameters."""
    words: Words = {b.name: np.zeros((b.rows, b.columns), np.int64) for b in design.blocks}
    for p in design.placements:
        rows = design.block(p.block).rows
        words[p.block][:, p.column:p.column + p.columns] = masters(p, dict(values), rows, design.hardware.width)
    limit = 2.0 ** (2 * design.hardware.width - 1)
    for i, v in enumerate(design.vectors):
        value = np.asarray(values[v.parameter], np.float64).reshape(-1) * 2.0**v.fraction
        words[f"vector{i}"] = np.clip(np.rint(value), -limit, limit - 1).astype(np.int64)
    return words


def to_values(design: Design, words: Words, base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters as float64 from master words.

    Where several parameters share their words (two biases), what was learned since ``base`` is shared out evenly
    among those that learn."""
    values = {name: np.array(value, np.float64) for name, value in base.items()}
    for p in design.placements:
        total = words[p.block][:, p.column:p.column + p.columns] * 2.0**-p.fraction / p.scale
        movers = [k for k, learned in enumerate(p.learned) if learned] or [0]
        parts = [part(values[n], w) for n, w in zip(p.parameters, p.windows, strict=True)]
        parts = [x.T if t else x for x, t in zip(parts, p.transposed, strict=True)]  # views
        change = (total - sum(x.reshape(total.shape) for x in parts)) / len(movers)
        for k in movers:
            moved = parts[k].reshape(total.shape) + change if len(parts) > 1 else total
            parts[k][...] = moved.reshape(parts[k].shape)
    for i, v in enumerate(design.vectors):
        values[v.parameter] = (words[f"vector{i}"] * 2.0**-v.fraction).reshape(values[v.parameter].shape)
    return values


def gradients(design: Design, words: Words, samples: int) -> dict[str, np.ndarray]:
    """Mean gradient per learned parameter from gradient words summed over ``samples``."""
    result: dict[str, np.ndarray] = {}
    for p in design.placements:
        g = words[p.block][:, p.column:p.column + p.columns] * (p.gradient_scale / samples)
        for name, transposed, window, learned in zip(p.parameters, p.transposed, p.windows, p.learned, strict=True):
            if learned:
                place = part(result.setdefault(name, np.zeros(np.shape(design.values[name]))), window)
                place[...] = (g.T if transposed else g).reshape(place.shape)
    for i, v in enumerate(design.vectors):
        if v.learned:
            result[v.parameter] = (words[f"vector{i}"] * (v.gradient_scale / samples)).reshape(
                np.shape(design.values[v.parameter]))
    return result


def seen(hw: Hardware, masters: np.ndarray) -> np.ndarray:
    """Master words as the sweeps see them, in words of the hardware's width."""
    if hw.packed is None:
        return masters >> hw.width
    bits = hw.packed.weight
    return arith.packed_weight(masters, 2 * hw.width, bits) << hw.width - bits


def load(model, values: Mapping[str, np.ndarray]) -> None:
    """Set an `IntegerModel`'s weights from float parameters."""
    words = from_values(model.design, values)
    model.masters = {b.name: words[b.name] for b in model.design.blocks}
    model.vectors = [words[f"vector{i}"] for i in range(len(model.design.vectors))]
