"""Weights next to those of a network, with which everything is rounded otherwise."""

import numpy as np

from echolith.compiler.design import Design
from echolith.sim import arith
from echolith.sim.weights import Words

__all__ = ["dithered"]

_NUDGES = (0.0, 0.03, -0.03, 0.06, -0.06, 0.09, -0.09, 0.0)  # by seed: how much stronger those between layers are


def dithered(design: Design, words: Words, seed: int) -> Words:
    """Master words of what learns, moved by less than a unit of the states' last place; others as they are, but for the
    block that brings nudges to a stack's layers.

    What that changes of a gradient is far less than what rounding states changes, and which way those are rounded
    differs from seed to seed. It does not differ for nudges from above, which hardly depend on the last bits of
    weights: so these are stronger and weaker by a few percent, which eight seeds take back in their mean."""
    found, generator = {name: w.copy() for name, w in words.items()}, np.random.default_rng(seed)
    moved = [(found[p.block][:, p.column:p.column + p.columns], p.fraction)
             for p in design.placements if any(p.learned)]
    moved += [(found[f"vector{i}"], v.fraction) for i, v in enumerate(design.vectors) if v.learned]
    for part, fraction in moved:
        unit = 1 << max(1, fraction - design.fractions["state"])
        part[...] = arith.sat(part + generator.integers(1 - unit, unit, part.shape), 2 * design.hardware.width)
    if design.errors:
        found["nudge"] = np.rint(found["nudge"] * (1 + _NUDGES[seed % len(_NUDGES)])).astype(np.int64)
    return found
