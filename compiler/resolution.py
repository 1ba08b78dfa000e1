"""How well a circuit computes its expressions on calibrated samples, which decides how far its words reach."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from echolith.compiler.differentiate import evaluate
from echolith.compiler.ir import Expr
from echolith.compiler.pipeline import Pipeline
from echolith.compiler.pipeline import evaluate as run

__all__ = ["REACHES", "STRETCH", "Output", "furthest", "inaccuracy", "mean", "spread"]

# Times the calibrated range that a circuit's words and tables have to hold: all that the operands' formats can,
# unless that leaves too little resolution (steep functions).
REACHES = (np.inf, 8.0, 4.0, 2.0, 1.4, 1.0)
STRETCH = 0.75  # of a format that calibrated samples are tried over
_ELEMENTS = 1 << 14  # compared
_BITS, _FINE = 5, 3  # of a word's width that an error may take up; of one whose differences count


@dataclass(frozen=True)
class Output:
    """What an output of a circuit stands for: ``sum(exprs)`` with ``frac`` fraction bits; ``free`` is an error that
    does not matter; ``fine``: two echoes' differences count, which are small."""

    exprs: tuple[Expr, ...]
    frac: int
    free: float
    fine: bool = False


def spread(values: np.ndarray, frac: int, width: int, reach: float = np.inf) -> np.ndarray:
    """Samples stretched over most of their format, ``reach`` times at most: words may come to use all of it, and so
    must what follows."""
    largest = float(np.abs(values).max(initial=0.0))
    return values * min(STRETCH * 2.0 ** (width - 1 - frac) / largest, reach) if largest else values


def mean(errors: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(errors**2)))


def furthest(error: Callable[[float], float], reaches: Sequence[float] = REACHES) -> float:
    """The furthest reach whose `inaccuracy` is at most 1, or nearly as small as any's."""
    errors: dict[float, float] = {}
    for reach in reaches:
        errors[reach] = error(reach)
        if errors[reach] <= 1.0:
            break
    enough = max(1.0, 2.0 * min(errors.values()))
    return next(reach for reach, found in errors.items() if found <= enough)


def inaccuracy(pipeline: Pipeline, wanted: Mapping[str, Output], tables: Sequence[np.ndarray],
               operands: Mapping[str, tuple[str, int]], values: Mapping[str, np.ndarray], width: int, segments: int,
               norm: Callable[[np.ndarray], float] = mean) -> float:
    """Error of the worst output by ``norm``, over the largest that is tolerable: its own ``free`` or a fixed share of
    its range.

    ``operands`` are (name in ``values``, fraction bits) by input; inputs without one are zero."""
    rows = max((len(values[name]) for name, _ in operands.values() if values[name].ndim == 2), default=1)
    columns = max((values[name].shape[-1] for name, _ in operands.values()), default=1)
    keep = slice(None, None, max(1, rows * columns // _ELEMENTS))
    env = {name: v[keep] if v.ndim == 2 else v for name, v in values.items()}
    words = {name: np.zeros(1, np.int64) for name, _ in pipeline.inputs}
    words |= {name: np.rint(env[vector] * 2.0**frac).astype(np.int64) for name, (vector, frac) in operands.items()}
    found, worst = run(pipeline, words, tables, width, segments), 0.0
    for name, want in wanted.items():
        exact = sum(np.asarray(evaluate(e, env)) for e in want.exprs)
        error = norm(found[name] * 2.0**-want.frac - exact)
        largest = float(np.abs(exact).max())
        if largest:
            bits = _FINE if want.fine else _BITS
            worst = max(worst, error / max(want.free, 2.0 ** (bits - width) * largest))
    return float(worst)
