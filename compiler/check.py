"""The captured network compared with autograd on the user's own code, at every compile."""

from collections.abc import Iterable

import numpy as np
import torch

from echolith.compiler import numeric
from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Network
from echolith.compiler.trace import call, float64, parameters

__all__ = ["TOLERANCE", "check"]

TOLERANCE = 1e-9  # relative to the largest element
_FLOOR = 1e-4  # below this size a gradient is compared absolutely: cancelling sums leave rounding errors


def check(
    network: Network,
    model: torch.nn.Module,
    points: Iterable[tuple[np.ndarray, np.ndarray]] = (),
    rng: np.random.Generator | None = None,
) -> None:
    """Compares energy, cost and all gradients with autograd at the origin, at random points and at ``points``.

    ``model`` comes from ``trace.double``; ``points`` are pairs of shapes (units,) and (inputs,). Raises CompileError
    where they disagree by more than `TOLERANCE`, and where the force is not finite at the origin.
    """
    rng = rng or np.random.default_rng(0)
    start = numeric.Force(network)(np.zeros((1, network.units)), np.zeros((1, network.inputs)))
    if not np.isfinite(start).all():
        bad = start[~np.isfinite(start)][0]
        raise CompileError(f"energy: dV/dq must be finite at q = 0, u = 0, where every sample starts, not {bad}")
    random = [(rng.normal(size=network.units), rng.normal(size=network.inputs)) for _ in range(3)]
    compared = 0
    for q, u in [*random, *points]:
        compared += _energy(network, model, np.asarray(q, np.float64), np.asarray(u, np.float64))
        if network.cost is not None:
            _cost(network, model, np.asarray(q, np.float64), rng.uniform(0.05, 0.95, network.outputs))
    if not compared:
        raise CompileError("energy: must be finite near q = 0, not inf or NaN at every point tried")


def _energy(network: Network, model: torch.nn.Module, q: np.ndarray, u: np.ndarray) -> bool:
    value, dq, gradient = _autograd(model, "energy", q, u)
    if not (np.isfinite(value).all() and np.isfinite(dq).all()):
        return False
    q, u = q[None], u[None]
    _same("energy", "value", numeric.energy(network, q, u)[0], value)
    _same("energy", "dV/dq", numeric.Force(network)(q, u)[0], dq)
    _same_gradients("energy", network, numeric.gradient(network, q, u), gradient)
    return True


def _cost(network: Network, model: torch.nn.Module, q: np.ndarray, target: np.ndarray) -> None:
    value, dq, gradient = _autograd(model, "cost", q, target)
    if not (np.isfinite(value).all() and np.isfinite(dq).all()):
        return
    found, parts = numeric.cost_gradient(network, q[None], target[None])
    _same("cost", "value", numeric.cost(network, q[None], target[None])[0], value)
    _same("cost", "dcost/dq", found[0], dq)
    _same_gradients("cost", network, parts, gradient)


def _autograd(
    model: torch.nn.Module, method: str, q: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """(value, d/dq, d/dparameter) of one method at one point."""
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    values = {name: v.detach().clone().requires_grad_(name in learned) for name, v in parameters(model).items()}
    state = torch.tensor(q, requires_grad=True)
    with float64(), torch.enable_grad():
        value = call(model, method, values, state * 1, torch.tensor(other))
        leaves = [state, *(values[name] for name in sorted(learned))]
        grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    arrays = [g.numpy() for g in grads]
    return value.detach().numpy(), arrays[0], dict(zip(sorted(learned), arrays[1:], strict=True))


def _same_gradients(
    method: str, network: Network, found: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> None:
    for name, value in expected.items():
        zero = np.zeros_like(value)
        _same(method, f"gradient of {name}", found.get(name, zero), value)


def _same(method: str, what: str, found: np.ndarray, expected: np.ndarray) -> None:
    scale = max(float(np.max(np.abs(expected), initial=0.0)), _FLOOR)
    error = float(np.max(np.abs(found - expected), initial=0.0)) / scale
    if not error <= TOLERANCE:
        raise CompileError(
            f"{method}: {what} of the captured network must equal autograd within {TOLERANCE:g}; this is a defect of "
            f"the compiler or an in-place write in the method, not a relative error of {error:.3g}"
        )
