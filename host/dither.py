"""Other roundings of the same weights."""

import numpy as np

from echolith.compiler.design import Design
from echolith.sim import arith
from echolith.sim.weights import Words

__all__ = ["dithered"]


def dithered(design: Design, words: Words, seed: int) -> Words:
    """Master words of what learns, moved by less than half a unit of what the sweeps see of them; others as they are.

    Which way a weight is rounded differs from seed to seed, and so does everything that is rounded after it."""
    found, generator = {name: w.copy() for name, w in words.items()}, np.random.default_rng(seed)
    half = 1 << design.hardware.width - 1
    moved = [found[p.block][:, p.column:p.column + p.columns] for p in design.placements if any(p.learned)]
    moved += [found[f"vector{i}"] for i, vector in enumerate(design.vectors) if vector.learned]
    for part in moved:
        part[...] = arith.sat(part + generator.integers(1 - half, half, part.shape), 2 * design.hardware.width)
    return found
