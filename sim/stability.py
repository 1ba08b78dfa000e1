"""Stability of the leapfrog: dt^2 * lambda_max of the energy's Hessian along a trajectory. numpy only."""

from collections.abc import Mapping

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.differentiate import derivative, evaluate
from echolith.sim.data import words
from echolith.sim.model import IntegerModel, State
from echolith.sim.weights import from_values

__all__ = ["curvature"]

_STATES = 8


def curvature(design: Design, values: Mapping[str, np.ndarray], x: np.ndarray) -> float:
    """dt^2 times the largest eigenvalue of d2V/dq2 over some states that ``x`` (samples, steps, inputs) visits.

    The leapfrog is stable below 4."""
    block = next((b for b in design.blocks if b.name == "hidden"), None)
    model = IntegerModel(design)
    loaded = from_values(design, values)
    model.masters = {b.name: loaded[b.name] for b in design.blocks}
    model.vectors = [loaded[f"vector{i}"] for i in range(len(design.vectors))]
    data, _ = words(design, x[:_STATES], None)
    states: list[State] = []
    model.echo(data, states)
    scale = 2.0 ** -design.fractions["state"]
    local = derivative(derivative(design.local, "q"), "q")
    bend = derivative(derivative(design.potential, "z"), "z")
    w = model.masters["hidden"] * 2.0 ** -(design.fractions["hidden"] + design.hardware.width) if block else None
    largest = 0.0
    for index, state in enumerate(states[:design.dynamics.steps]):
        for sample in range(min(len(data), 2)):
            q = state.q[sample] * scale
            hessian = np.diag(np.broadcast_to(evaluate(local, {**values, "q": q}), q.shape))
            if w is not None:
                drive = model.drive(data[sample:sample + 1, index])[0] * 2.0 ** -design.fractions["z"]
                d2 = np.broadcast_to(evaluate(bend, {**values, "z": w @ q + drive}), drive.shape)
                hessian = hessian + (w * d2[:, None]).T @ w
            largest = max(largest, float(np.linalg.eigvalsh(hessian)[-1]))
    return design.dynamics.dt**2 * largest
