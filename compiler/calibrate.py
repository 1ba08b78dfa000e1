"""Ranges from data: the float64 trajectory of the network over the calibration batch."""

from dataclasses import dataclass

import numpy as np

from echolith.compiler.differentiate import derivative, evaluate
from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Affine, Network, const

__all__ = ["Samples", "affine_matrix", "calibrate"]

_DIVERGED = 1e6
_KEEP = 4096  # rows of samples kept per quantity


@dataclass(frozen=True)
class Samples:
    """Calibrated values: q, z, y (samples, size), p's largest magnitude, the data themselves."""

    q: np.ndarray
    p: float
    z: np.ndarray
    y: np.ndarray
    inputs: np.ndarray  # (batch, steps, inputs)
    targets: np.ndarray  # (batch, read-outs, outputs)


def affine_matrix(network: Network, affine: Affine, source: str, columns: int) -> np.ndarray:
    """The summed matrix (rows, columns) with which ``source`` enters; a column for ``one``."""
    total = np.zeros((affine.rows, columns))
    for term in affine.terms:
        if term.source == source:
            value = np.asarray(network.values[term.parameter], np.float64)
            value = value.T if term.transposed else value
            total += term.scale * (value.reshape(affine.rows, columns))
    return total


class _Map:
    """An affine form as matrices."""

    def __init__(self, network: Network, affine: Affine):
        self.q = affine_matrix(network, affine, "q", network.units)
        self.u = affine_matrix(network, affine, "u", network.inputs)
        self.one = affine_matrix(network, affine, "one", 1)[:, 0]

    def __call__(self, q: np.ndarray, u: np.ndarray) -> np.ndarray:
        return q @ self.q.T + u @ self.u.T + self.one


def calibrate(network: Network, x: np.ndarray, targets: np.ndarray, dt: float, substeps: int, cost_at: str | None
              ) -> Samples:
    """Run forward in float64 from rest; ``x`` is (batch, steps, inputs)."""
    q = p = np.zeros((len(x), network.units))
    qs, zs, ys, largest = [], [], [], 0.0
    local_force = derivative(network.local, "q")
    hidden = _Map(network, network.couplings[0].affine) if network.couplings else None
    slope = derivative(network.couplings[0].potential, "z") if network.couplings else const(0)
    readout = _Map(network, network.readout) if network.readout else None
    for row in range(x.shape[1]):
        for substep in range(substeps):
            q = q + dt * p
            force = np.broadcast_to(evaluate(local_force, {**network.values, "q": q}), q.shape)
            if hidden:
                z = hidden(q, x[:, row])
                force = force + np.broadcast_to(evaluate(slope, {"z": z}), z.shape) @ hidden.q
                zs.append(z)
            qs.append(q)
            if readout and substep == substeps - 1 and (cost_at == "every" or row == x.shape[1] - 1):
                ys.append(readout(q, x[:, row]))
            p = p - dt * force
            largest = max(largest, float(np.abs(p).max(initial=0.0)))
            if not largest < _DIVERGED:
                raise CompileError(
                    f"the dynamics diverge on the calibration data at input row {row}: make dt smaller "
                    f"(leapfrog needs dt^2 * lambda_max < 4) or scale the weights, not dt={dt:g}")
    return Samples(_thin(qs), largest, _thin(zs), _thin(ys), x, targets)


def _thin(values: list[np.ndarray]) -> np.ndarray:
    """Some rows, among them the one with the largest magnitude of every column."""
    if not values:
        return np.zeros((1, 1))
    rows = np.concatenate(values)
    if len(rows) <= _KEEP:
        return rows
    keep = np.unique(np.concatenate([np.linspace(0, len(rows) - 1, _KEEP).astype(int), np.abs(rows).argmax(0)]))
    return rows[keep]
