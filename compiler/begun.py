"""Read-outs that begin at zero or small, and what stands for them where ranges are looked for.

Nudges come back through the read-out, so they and all gradients behind it grow as it does: by 2^10 within a few updates
of weights of a thousandth, and from nothing of weights of zero. Words that hold them are chosen for a read-out as large
as one drawn at random; the weights that the chip gets stay what they are.
"""

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from echolith.compiler.differentiate import names
from echolith.compiler.steps import Flow, Map, Maximum

__all__ = ["begun"]

_LEAST = 2  # bits; what is smaller by less is left alone
_MOST = 8  # bits by which a read-out is larger, as nudges may be stronger by no more (`quantise.NUDGE`)


def begun(flow: Flow, learned: Collection[str]) -> Mapping[str, np.ndarray]:
    """The values of a flow, with larger weights of the read-out if they learn and nothing else has them."""
    found = {}
    for term in flow.readout.terms if flow.readout is not None else ():
        name = getattr(term.matrix, "parameter", "")
        if name in learned and name not in set(_elsewhere(flow)):
            weights = np.asarray(flow.values[name], np.float64)
            found[name] = _larger(weights, 1 / (abs(term.scale) * np.sqrt(np.atleast_2d(weights).shape[-1])))
    return {**flow.values, **found}


def _larger(weights: np.ndarray, usual: float) -> np.ndarray:
    largest = float(np.abs(weights).max(initial=0.0))
    if largest < usual * 2.0**-_MOST:
        return usual * np.random.default_rng(0).uniform(-1, 1, weights.shape)
    bits = int(np.floor(np.log2(usual / largest)))
    return weights * 2.0**bits if bits >= _LEAST else weights


def _elsewhere(flow: Flow) -> Iterator[str]:
    """Parameters that are not the read-out's alone."""
    for matrix in (*flow.matrices.values(), *(t.matrix for drive in flow.drives.values() for t in drive.terms)):
        yield getattr(matrix, "parameter", "")
    for step in flow.steps:
        yield from names(step.expr) if isinstance(step, Map | Maximum) else ()
