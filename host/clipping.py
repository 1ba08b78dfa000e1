"""Whether training moved a network beyond the words that it was compiled for: sums, what layers are fed and outputs
clip without a flag, and what is learned from there on is not the gradient."""

import warnings
from collections.abc import Mapping

import numpy as np

from echolith.compiler.design import Design
from echolith.sim import adjoint
from echolith.sim.spans import affordable, reach, slope_reach, spans

__all__ = ["clipped", "warn_clipped"]

_SAMPLES = 64
_FLAGGED = ("input", "target", "momenta")  # reported elsewhere, as states and weights are
_SLIGHT = 0.01  # of the largest slope of the cost, what clipped outputs may change
_NAMED = 3

Values = Mapping[str, np.ndarray]


def clipped(design: Design, values: Values, x: np.ndarray, y: np.ndarray) -> list[str]:
    """What does not fit on these samples and should, one text each.

    ``x`` is (samples, rows, inputs), ``y`` (samples, read-outs, outputs)."""
    sums = {made.acc for made in design.passes}  # these may clip where their functions are flat, which `reach` tells
    others = {*_FLAGGED, *design.states, *sums, *(b.name for b in design.blocks)}
    beyond = [t for t in spans(design, values, x, y)
              if t.margin < 0 and t.name not in others and not t.name.startswith("vector")]
    found = [f"{t.name} reaches {max(map(abs, t.seen)):.3g} and its words ({t.format}) end at {t.limit:g}"
             for t in sorted(beyond, key=lambda t: ":" in t.name)  # parts of others last
             if t.name != "output" or _steep(design, values, x, y, t.limit)]
    if not any(text.startswith("output ") for text in found) and not slope_reach(design, values, x, y):
        found.append("the circuit of the cost's derivative clips")
    return found + [f"the circuit of {name} clips" for name, times in reach(design, values, x).items() if not times]


def _steep(design: Design, values: Values, x: np.ndarray, y: np.ndarray, limit: float) -> bool:
    """Whether outputs that end at ``limit`` change what the cost makes of them."""
    if design.cost is None:
        return True
    out, cost = adjoint.outputs(design, values, x).reshape(y.shape), design.cost
    exact, found = (adjoint.cost_slope(cost, o, y) for o in (out, out.clip(-limit, limit)))
    least = 2.0 ** -design.fractions["delta"]
    return float(np.abs(found - exact).max()) > max(_SLIGHT * float(np.abs(exact).max()), least)


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
