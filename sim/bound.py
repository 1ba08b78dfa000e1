"""How far a fixed-point pipeline may be from the real function: running error bounds, from the formats alone.

Every op keeps a bound of |word - exact value| in its own units: half a unit for a rounding and a rounded constant, what
the operands pass on, and for a table the distance of its chords from the curve. Clipping is no rounding and has no
allowance: where it happens, the bound is exceeded, as it should be.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from echolith.compiler.pipeline import Op, Pipeline, apply, table_lookup
from echolith.sim import arith

__all__ = ["Bounded", "bounds"]

Bounded = tuple[np.ndarray, np.ndarray]  # words and their bounds

_HALF = 0.5


def bounds(pipeline: Pipeline, inputs: Mapping[str, Bounded], tables: Sequence[np.ndarray], width: int, segments: int
           ) -> dict[str, Bounded]:
    """Outputs by name, as `pipeline.evaluate`, with their bounds."""
    found: list[Bounded] = []
    for op in pipeline.ops:
        args = [found[a] for a in op.args]
        if op.kind == "input":
            found.append(inputs[op.name])
        elif op.kind == "table":
            x, error = args[0]
            found.append((table_lookup(x, tables[op.n], width, segments),
                          _table(x, error, tables[op.n], width, segments)))
        else:
            found.append((np.asarray(apply(op, *(v for v, _ in args))), _error(op, args)))
    return {name: found[index] for name, index in pipeline.outputs}


def _error(op: Op, args: Sequence[Bounded]) -> np.ndarray:
    if op.kind == "const":
        return np.asarray(_HALF if op.n else 0.0)
    (a, ea), (b, eb) = args[0], args[-1]
    if op.kind in ("add", "sub"):
        return ea + eb
    if op.kind == "mul":
        return np.abs(a) * eb + np.abs(b) * ea + ea * eb
    if op.kind == "shl":
        return ea * 2.0**op.n
    return ea * 2.0**-op.n + _HALF if op.kind in ("rnd", "even") else ea  # else sat, unless


def _table(x: np.ndarray, error: np.ndarray, table: np.ndarray, width: int, segments: int) -> np.ndarray:
    """The argument's error times the slope, the chord, one rounded knot, one rounded result."""
    slope, chord = _shape(table.tobytes(), table.shape)
    reach = np.ceil(error).astype(np.int64)  # the exact argument may be in another segment
    low, here, high = (arith.table_address(arith.sat(x + d, width), width, segments) for d in (-reach, 0, reach))
    chords = np.maximum(np.maximum(chord[low], chord[here]), chord[high])
    return error * slope[here] * 2.0 ** (segments - width) + chords + 2 * _HALF


@cache
def _shape(data: bytes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Per segment, from the knots' words: the steepest difference around it, and how far the curve may be from it.

    A smooth curve is at most an eighth of the change of the difference away, one with a bend a quarter. Where a
    difference stands out the curve may jump, but not there and back: no force does that."""
    table = np.frombuffer(data, np.int64).reshape(shape)
    knots = np.append(table[:, 0], table[-1].sum())
    d = np.diff(knots).astype(np.float64)
    before, after = np.append(d[:1], d[:-1]), np.append(d[1:], d[-1:])
    change = np.maximum(np.abs(d - before), np.abs(d - after))
    back = (d * np.stack([before, after]) < 0) & (2 * np.abs([before, after]) >= np.abs(d))
    jumps = (2 * change >= np.abs(d)) & ~back.any(0)
    steepest = np.maximum(np.abs(d), np.maximum(np.abs(before), np.abs(after)))
    return steepest, np.where(jumps, np.abs(d), change / 4)
