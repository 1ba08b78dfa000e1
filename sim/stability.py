"""Stability of the leapfrog: dt^2 * lambda_max of the energy's Hessian along a trajectory. numpy only."""

from collections.abc import Mapping

import numpy as np

from echolith.compiler.calibrate import force
from echolith.compiler.design import Design
from echolith.compiler.differentiate import derivative, evaluate
from echolith.sim.data import words
from echolith.sim.model import IntegerModel
from echolith.sim.state import State
from echolith.sim.weights import from_values

__all__ = ["curvature"]

_STATES = 8  # samples run, input rows looked at
_STEP = 1e-5  # of the differences
_ROUNDS = 30  # of the power iteration


def curvature(design: Design, values: Mapping[str, np.ndarray], x: np.ndarray) -> float:
    """dt^2 times the largest eigenvalue of M^-1 d2V/dq2 over some states that ``x`` (samples, steps, inputs) visits.

    The leapfrog is stable below 4."""
    model = IntegerModel(design)
    loaded = from_values(design, values)
    model.masters = {b.name: loaded[b.name] for b in design.blocks}
    model.vectors = [loaded[f"vector{i}"] for i in range(len(design.vectors))]
    data, _ = words(design, x[:_STATES], None)
    states: list[State] = []
    model.echo(data, states)
    rows = np.unique(np.linspace(0, design.dynamics.steps - 1, _STATES).astype(int))
    q = np.concatenate([states[row].q[:2] for row in rows]) * 2.0 ** -design.fractions["state"]
    u = np.concatenate([x[:_STATES][:2, row] for row in rows])
    return design.dynamics.dt * _largest(design, values, q, u)


def _kicks(design: Design, values: Mapping[str, np.ndarray], q: np.ndarray, u: np.ndarray) -> np.ndarray:
    """dt * dV/dq of all states, one after the other."""
    places, start = {}, 0
    for state, units in design.states.items():
        places[state] = q[:, start:start + units]
        start += units
    _, found = force(design.forces, design, {**places, "u": u}, values)
    return np.concatenate([np.broadcast_to(found.get(s, 0.0), v.shape) for s, v in places.items()], axis=1)


def _lightness(design: Design, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """d2T/dp2 of every unit at rest: 1 / mass."""
    flat = {name: np.asarray(v).reshape(-1) for name, v in values.items()}
    parts = []
    for state, units in design.states.items():
        slope = derivative(derivative(design.kinetic[state], "p"), "p")
        parts.append(np.broadcast_to(evaluate(slope, {**flat, "p": np.zeros(units)}), units))
    return np.concatenate(parts)


def _largest(design: Design, values: Mapping[str, np.ndarray], q: np.ndarray, u: np.ndarray) -> float:
    """Largest eigenvalue of the kicks' derivative, over the masses, over all rows of q: power iteration on
    differences."""
    x = np.random.default_rng(0).normal(size=q.shape)
    value, lightness = np.zeros(len(q)), _lightness(design, values)
    for _ in range(_ROUNDS):
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y = (_kicks(design, values, q + _STEP * x, u) - _kicks(design, values, q - _STEP * x, u)) / (2 * _STEP)
        y = y * lightness
        value = np.sum(x * y, axis=1)
        if not np.linalg.norm(y, axis=1).all():
            break
        x = y
    return float(value.max())
