"""A step of a stack's echoes in the integer model."""

from typing import TYPE_CHECKING

import numpy as np

from echolith.compiler.phases import moves
from echolith.sim import arith
from echolith.sim.force import Contrast, Force, Motion
from echolith.sim.inputs import Row
from echolith.sim.state import Outcome, State

if TYPE_CHECKING:
    from echolith.sim.model import IntegerModel

__all__ = ["step_back"]


def step_back(model: "IntegerModel", copies: State, where: tuple, rows: tuple[Row, Row], out: Outcome,
              nudge: np.ndarray | int, contrast: Contrast, exponent: np.ndarray) -> None:
    """Undo a step of + echoes, - echoes and un-nudged copies in place; ``rows`` are the inputs of all and of the last,
    ``nudge`` what a read-out there has left."""
    d, n = model.design, len(copies.q) // 3
    if isinstance(nudge, np.ndarray):
        Motion(model, copies, where, out, True, contrast).kick(nudge)
    pair = Force(model, copies[2 * n:], rows[1], where, out, contrast=Contrast(model.arrays, exponent - model.gain, n))
    pair.run(d.feeds)
    assert copies.v is not None
    for sweep in d.copies:
        place = slice(sweep.place, sweep.place + sweep.length)
        copies.v[:2 * n, place] = np.tile(copies.v[2 * n:, place], (2, 1))
    force = Force(model, copies, rows[0], where, out, reverse=True, contrast=contrast)
    force.run([s for s in d.sweeps if not moves(s)])
    pair.run(d.errors)
    force.nudge = _below(model, pair, len(copies.q))
    force.run([s for s in d.sweeps if moves(s)])


def _below(model: "IntegerModel", pair: Force, count: int) -> np.ndarray:
    """Nudges of the layers below, for all copies."""
    d, hw, n = model.design, model.hw, count // 3
    found = np.zeros((count, d.units), np.int64)
    if d.lower:
        t, w = pair.rows[d.errors[-1].tile].astype(np.int64), model.swept("nudge")[0, 0]
        words = arith.sat(arith.rnd(t * w, hw.nudge_shift), hw.width)
        found[:n, :d.lower], found[n:2 * n, :d.lower] = words, -words
    return found
