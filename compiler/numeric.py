"""A captured network evaluated in float64 numpy: energy, force, readout, cost, and all their gradients.

Arrays carry a leading batch axis: q (batch, units), u (batch, inputs), target (batch, outputs).
"""

from collections.abc import Mapping

import numpy as np

from echolith.compiler.differentiate import derivative, evaluate, names
from echolith.compiler.ir import Affine, Network

__all__ = ["Force", "affine", "cost", "cost_gradient", "energy", "gradient", "matrix", "readout"]


def affine(form: Affine, values: Mapping[str, np.ndarray], sources: Mapping[str, np.ndarray]) -> np.ndarray:
    """z of shape (batch, rows); ``sources`` holds "q" and whichever of "u" the terms need."""
    z = np.zeros((sources["q"].shape[0], form.rows))
    for term in form.terms:
        array = values[term.parameter]
        if term.source == "one":
            z += term.scale * array
        else:
            z += term.scale * (sources[term.source] @ (array if term.transposed else array.T))
    return z


def energy(network: Network, q: np.ndarray, u: np.ndarray) -> np.ndarray:
    """V of every sample, shape (batch,)."""
    total = np.broadcast_to(evaluate(network.local, {**network.values, "q": q}), q.shape).sum(axis=1)
    for coupling in network.couplings:
        z = affine(coupling.affine, network.values, {"q": q, "u": u})
        total = total + np.broadcast_to(evaluate(coupling.potential, {"z": z}), z.shape).sum(axis=1)
    return total


class Force:
    """dV/dq with the symbolic work done once."""

    def __init__(self, network: Network):
        self.network = network
        self._local = derivative(network.local, "q")
        self._slopes = [derivative(c.potential, "z") for c in network.couplings]

    def rows(self, q: np.ndarray, u: np.ndarray) -> list[np.ndarray]:
        """z of every coupling, each (batch, rows)."""
        return [affine(c.affine, self.network.values, {"q": q, "u": u}) for c in self.network.couplings]

    def slopes(self, z: list[np.ndarray]) -> list[np.ndarray]:
        """dv/dz of every coupling, each (batch, rows)."""
        return [np.broadcast_to(evaluate(s, {"z": x}), x.shape) for s, x in zip(self._slopes, z, strict=True)]

    def __call__(self, q: np.ndarray, u: np.ndarray) -> np.ndarray:
        """dV/dq of shape (batch, units)."""
        total = np.broadcast_to(evaluate(self._local, {**self.network.values, "q": q}), q.shape).copy()
        for coupling, slope in zip(self.network.couplings, self.slopes(self.rows(q, u)), strict=True):
            total += slope @ matrix(coupling.affine, self.network.values, self.network.units)
        return total


def matrix(form: Affine, values: Mapping[str, np.ndarray], units: int) -> np.ndarray:
    """dz/dq of shape (rows, units)."""
    total = np.zeros((form.rows, units))
    for term in form.terms:
        if term.source == "q":
            array = values[term.parameter]
            total += term.scale * (array.T if term.transposed else array)
    return total


def gradient(network: Network, q: np.ndarray, u: np.ndarray) -> dict[str, np.ndarray]:
    """dV/dparameter summed over the batch, by name, for every parameter that learns and occurs in the energy."""
    found: dict[str, np.ndarray] = {}
    env = {**network.values, "q": q}
    for name in sorted(names(network.local) & network.learned):
        slope = np.broadcast_to(evaluate(derivative(network.local, name), env), q.shape)
        shape = network.values[name].shape
        found[name] = slope.sum(axis=0) if shape == q.shape[1:] else slope.sum().reshape(shape)
    force = Force(network)
    for coupling, slope in zip(network.couplings, force.slopes(force.rows(q, u)), strict=True):
        _accumulate(found, network, coupling.affine, slope, {"q": q, "u": u})
    return found


def _accumulate(
    found: dict[str, np.ndarray], network: Network, form: Affine, slope: np.ndarray, sources: Mapping[str, np.ndarray]
) -> None:
    for term in form.terms:
        if term.parameter not in network.learned:
            continue
        if term.source == "one":
            part = slope.sum(axis=0)
        else:
            part = slope.T @ sources[term.source]
            part = part.T if term.transposed else part
        found[term.parameter] = found.get(term.parameter, 0.0) + term.scale * part


def readout(network: Network, q: np.ndarray) -> np.ndarray:
    """y of shape (batch, outputs); the states themselves when the network has no readout."""
    return q if network.readout is None else affine(network.readout, network.values, {"q": q})


def cost(network: Network, q: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The cost of every sample, shape (batch,); the network must have one."""
    assert network.cost is not None
    y = readout(network, q)
    return np.broadcast_to(evaluate(network.cost, {"y": y, "target": target}), y.shape).sum(axis=1)


def cost_gradient(
    network: Network, q: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """dcost/dq of shape (batch, units), and dcost/dparameter summed over the batch by name."""
    assert network.cost is not None and network.readout is not None
    y = readout(network, q)
    slope = np.broadcast_to(evaluate(derivative(network.cost, "y"), {"y": y, "target": target}), y.shape)
    found: dict[str, np.ndarray] = {}
    _accumulate(found, network, network.readout, slope, {"q": q})
    return slope @ matrix(network.readout, network.values, network.units), found
