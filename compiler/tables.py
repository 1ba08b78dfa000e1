"""Contents of the piecewise-linear tables: the value at each knot and the difference to the next.

Chords of a curve that bends one way are all on one side of it, and a step that is wrong by the same amount each time
adds up over a run. So knots are moved towards the curve by two thirds of what the chords beside them miss in their
middles: then a table is right on average, and its largest error is two thirds of what it was. At bends and poles,
where the chords beside a knot do not miss alike, it stays.
"""

from dataclasses import dataclass

import numpy as np

from echolith.compiler.differentiate import evaluate, names
from echolith.compiler.errors import CompileError
from echolith.compiler.formats import fraction
from echolith.compiler.ir import Expr

__all__ = ["Knots", "table"]

_WILD = 64.0  # times the largest value at arguments that are used: 1 / (x + 1e-8) at 0


@dataclass(frozen=True)
class Knots:
    """Values at the ends of all segments; ``frac`` is the finest format that holds the used ones."""

    values: np.ndarray
    frac: int

    def words(self, frac: int, width: int) -> np.ndarray:
        """(segments, 2) int64: the word at the left end and the difference to the right one, clipped."""
        limit = 1 << (width - 1)
        words = np.clip(np.rint(self.values * 2.0**frac), -limit, limit - 1).astype(np.int64)
        return np.stack([words[:-1], np.clip(np.diff(words), -limit, limit - 1)], axis=1)


def table(expr: Expr, argument_frac: int, used: float, width: int, segments: int, least: float = -np.inf) -> Knots:
    """``expr`` (of one variable) for every argument word of ``width`` bits with ``argument_frac``.

    The format holds all values for |argument| <= ``used``; beyond, the table is clipped. With ``least`` >= 0
    nothing is asked of the function for arguments below zero, nor below ``least`` if it is wild or not finite there.
    """
    (name,) = names(expr)
    knots = (np.arange((1 << segments) + 1) - (1 << (segments - 1))) * 2.0 ** (width - segments - argument_frac)
    inside = np.abs(knots) <= used + knots[1] - knots[0]
    values = np.broadcast_to(evaluate(expr, {name: knots}), knots.shape).copy()
    positive = inside & (knots >= 0)
    if least >= 0:
        needed = inside & (knots >= least)
        wild = _WILD * np.abs(values[needed]).max(initial=0.0)
        inside = positive if (np.abs(values[positive]) <= wild).all() else needed
    if not np.isfinite(values[inside]).all():
        bad = knots[inside][~np.isfinite(values[inside])][0]
        raise CompileError(
            f"its derivative must be finite for |{name}| <= {used:g}, the calibrated range with a margin; keep "
            f"what is under log, sqrt and quotients away from 0, and exponents small, not {expr} at {name} = {bad:g}")
    middles = np.broadcast_to(evaluate(expr, {name: (knots[1:] + knots[:-1]) / 2}), knots[1:].shape)
    values += _centred(values, middles)
    usable = np.flatnonzero(np.isfinite(values))
    values = np.interp(np.arange(len(knots)), usable, values[usable])
    frac = fraction(float(np.abs(values[inside]).max()), width, 1.0 + 2.0 ** (2 - width))
    return Knots(values, min(frac, 2 * width))


def _centred(values: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """By how much knots are moved."""
    with np.errstate(all="ignore"):
        missed = np.nan_to_num(middles - (values[1:] + values[:-1]) / 2, nan=0.0, posinf=0.0, neginf=0.0)
    left, right = np.append(0.0, missed), np.append(missed, 0.0)
    least = np.sign(left) * np.minimum(np.abs(left), np.abs(right))
    return np.where(np.sign(left) == np.sign(right), least, 0.0) * 2 / 3
