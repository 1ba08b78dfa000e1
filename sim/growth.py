"""How fast perturbations of the states grow: chaos is what limits the length of an echo. float64, numpy only."""

from collections.abc import Mapping

import numpy as np

from echolith.compiler.design import Design
from echolith.sim import adjoint

__all__ = ["growth"]

_APART = 1e-7  # of two trajectories


def growth(design: Design, values: Mapping[str, np.ndarray], x: np.ndarray) -> float:
    """Growth per integrator step of the distance of two near trajectories, as a natural logarithm, of the sample where
    it is largest.

    ``x`` is (samples, rows, inputs). The distance, over positions and momenta, starts in a random direction and is
    scaled back after every step; the growth is the mean over the steps."""
    d, generator = design.dynamics, np.random.default_rng(0)
    apart = generator.normal(size=(2, len(x), design.units))
    q, p = np.zeros(apart.shape[1:]), np.zeros(apart.shape[1:])
    total = np.zeros(len(x))
    for step in range(d.substeps * x.shape[1]):
        u = x[:, step // d.substeps]
        apart = apart * (_APART / np.linalg.norm(apart, axis=(0, 2)))[:, None]
        moved = [_step(design, values, q + sign * apart[0], p + sign * apart[1], u) for sign in (0.5, -0.5)]
        apart = np.stack([moved[0][i] - moved[1][i] for i in range(2)])
        total += np.log(np.linalg.norm(apart, axis=(0, 2)) / _APART)
        q, p = _step(design, values, q, p, u)
    return float(total.max()) / (d.substeps * x.shape[1])


def _step(design: Design, values: Mapping[str, np.ndarray], q: np.ndarray, p: np.ndarray, u: np.ndarray
          ) -> tuple[np.ndarray, np.ndarray]:
    q = q + design.dynamics.dt * adjoint.speed(design, values, p)
    return q, p - adjoint.kicks(design, values, q, u)[1]
