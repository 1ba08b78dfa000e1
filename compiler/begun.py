"""Read-outs that begin at zero or small, and what stands for them where ranges are looked for.

Nudges come back through the read-out, so they and all gradients behind it grow as it does: by 2^10 within a few updates
of weights of a thousandth, and from nothing of weights of zero. Words that hold them are chosen for matrices as large
as those drawn at random; the weights that the chip gets stay what they are. The same of matrices between the layers of
a stack that are nearly zero.
"""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from echolith.compiler.graph import Dense
from echolith.compiler.select import Pass
from echolith.compiler.steps import Flow, Matrix

__all__ = ["begun"]

_SMALL, _NOTHING = 0.5, 2.0**-8  # of the usual size: larger ones of a read-out, and of others, are left alone


def begun(flow: Flow, learned: Collection[str], passes: Iterable[Pass], reads: Iterable[Pass],
          between: Iterable[Pass]) -> Mapping[str, np.ndarray]:
    """The values of a flow, with larger ones of learned matrices that only its read-out has, or ``reads``, which make
    its outputs, or what lies ``between`` layers; ``passes`` are all others."""
    own = [t.matrix for t in (flow.readout.terms if flow.readout is not None else ()) if isinstance(t.matrix, Dense)]
    others, found = {m.parameter for m in _matrices(flow, passes)}, {**flow.values}
    for matrices, least in (((*own, *_matrices(flow, reads)), _SMALL), (_matrices(flow, between), _NOTHING)):
        for matrix in matrices:
            name = matrix.parameter
            if name in learned and name not in others:
                found[name] = _larger(np.asarray(flow.values[name], np.float64), matrix.transposed, least)
    return found


def _larger(weights: np.ndarray, transposed: bool, least: float) -> np.ndarray:
    """``weights`` as large as `torch.nn.Linear` has them at first, if they are smaller than ``least`` of that."""
    usual = 1 / np.sqrt(np.atleast_2d(weights).shape[0 if transposed else -1])
    largest = float(np.abs(weights).max(initial=0.0))
    if largest < _NOTHING * usual:
        return usual * np.random.default_rng(0).uniform(-1, 1, weights.shape)
    return weights * usual / largest if largest < least * usual else weights


def _matrices(flow: Flow, passes: Iterable[Pass]) -> list[Dense | Matrix]:
    found: list[Dense | Matrix] = []
    for made in passes:
        for name in (made.matrix, made.drive):
            drive = flow.drives.get(name)
            found += [t.matrix for t in drive.terms if isinstance(t.matrix, Dense)] if drive is not None else []
            found += [flow.matrices[name]] if name in flow.matrices else []
    return found
