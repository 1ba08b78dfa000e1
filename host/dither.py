"""Weights next to those of a network, with which everything is rounded otherwise."""

import numpy as np

from echolith.compiler.design import Design
from echolith.sim import arith
from echolith.sim.weights import Words

__all__ = ["dithered"]


def dithered(design: Design, words: Words, seed: int) -> Words:
    """Master words of what learns, moved by less than a unit of the states' last place; others as they are.

    What that changes of a gradient is far less than what rounding states changes, and which way those are rounded
    differs from seed to seed."""
    found, generator = {name: w.copy() for name, w in words.items()}, np.random.default_rng(seed)
    moved = [(found[p.block][:, p.column:p.column + p.columns], p.fraction)
             for p in design.placements if any(p.learned)]
    moved += [(found[f"vector{i}"], v.fraction) for i, v in enumerate(design.vectors) if v.learned]
    for part, fraction in moved:
        unit = 1 << max(1, fraction - design.fractions["state"])
        part[...] = arith.sat(part + generator.integers(1 - unit, unit, part.shape), 2 * design.hardware.width)
    return found
