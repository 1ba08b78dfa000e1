"""Whether training moved a network beyond the words that it was compiled for: sums, what layers are fed and outputs
clip without a flag, and what is learned from there on is not the gradient."""

import warnings
from collections.abc import Mapping

import numpy as np

from echolith.compiler.design import Design
from echolith.sim.spans import affordable, reach, spans

__all__ = ["clipped", "warn_clipped"]

_SAMPLES = 16
_FLAGGED = ("input", "target", "momenta")  # reported elsewhere, as states and weights are
_NAMED = 3

Values = Mapping[str, np.ndarray]


def clipped(design: Design, values: Values, x: np.ndarray, y: np.ndarray) -> list[str]:
    """What does not fit on these samples, one text each.

    ``x`` is (samples, rows, inputs), ``y`` (samples, read-outs, outputs)."""
    sums = {made.acc for made in design.passes}  # these may clip where their functions are flat, which `reach` tells
    others = {*_FLAGGED, *design.states, *sums, *(b.name for b in design.blocks)}
    tensors = sorted(spans(design, values, x, y), key=lambda t: ":" in t.name)  # parts of others last
    found = [f"{t.name} reaches {max(map(abs, t.seen)):.3g} and its words ({t.format}) end at {t.limit:g}"
             for t in tensors if t.margin < 0 and t.name not in others and not t.name.startswith("vector")]
    return found + [f"the circuit of {name} clips" for name, times in reach(design, values, x).items() if not times]


def warn_clipped(design: Design, values: Values, x: np.ndarray, y: np.ndarray) -> None:
    """Look at some of the samples, words as the chip reads them, and warn."""
    some = np.unique(np.linspace(0, len(x) - 1, affordable(design, _SAMPLES)).astype(int))
    wanted = y[some] * 2.0 ** -design.fractions["target"]
    if design.missing is not None:
        wanted = np.where(y[some] == design.missing, np.nan, wanted)
    found = clipped(design, values, x[some] * 2.0 ** -design.fractions["input"], wanted)
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        warnings.warn(f"training moved the network beyond the range it was compiled for, and what clips gives no exact "
                      f"gradient: load state_dict() into the model and compile it again, or learn at a lower rate; "
                      f"{'; '.join(found[:_NAMED])}{more}", stacklevel=3)
