"""The float64 oracle: the user's own code under autograd through the leapfrog, and the captured network in numpy.

One substep is ``q += dt*p; p -= dt*dV/dq(q, u_t)`` from q = p = 0. ``Y`` meets the state right after the drift of the
last substep of an input row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from echolith.compiler import numeric
from echolith.compiler.capture import capture
from echolith.compiler.differentiate import derivative, evaluate
from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Network
from echolith.compiler.trace import call, double, float64, parameters

__all__ = ["Trajectory", "bptt", "max_curvature", "trajectory"]

Values = dict[str, torch.Tensor]
_EXACT = 512  # units up to which the Hessian is formed and diagonalised


def bptt(
    model: torch.nn.Module, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int, cost_at: str = "last"
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Backpropagation through time on a float64 copy of ``model``.

    Parameters
    ----------
    X
        Inputs, (batch, time, inputs).
    Y
        Targets, (batch, outputs); with ``cost_at="every"`` (batch, time, outputs).
    cost_at
        ``"last"``: the cost at the last row. ``"every"``: the sum of the costs at all rows.

    Returns
    -------
    The gradient of the batch mean of the cost, by name of the parameters that learn, and the outputs, (batch, outputs)
    or (batch, time, outputs): ``predict`` where the model has it, else the readout of its cost, else the states.
    """
    _check(model, cost_at)
    copied = double(model)
    learned = [name for name, p in copied.named_parameters() if p.requires_grad]
    values = {name: v.detach().clone().requires_grad_(name in learned) for name, v in parameters(copied).items()}
    units = _units(model)
    x, y = torch.as_tensor(np.asarray(X, np.float64)), torch.as_tensor(np.asarray(Y, np.float64))
    cost = torch.func.vmap(lambda q, target: call(copied, "cost", values, q, target))
    with float64(), torch.enable_grad():
        states = _states(copied, values, x, units, dt, substeps)
        if cost_at == "last":
            total = cost(states[-1], y).mean()
        else:
            total = sum((cost(q, y[:, row]).mean() for row, q in enumerate(states)), torch.zeros(()))
        leaves = [values[name] for name in learned]
        gradients = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    outputs = _outputs(model, copied, values, states)
    found = {name: g.numpy() for name, g in zip(learned, gradients, strict=True)}
    return found, outputs[:, -1] if cost_at == "last" else outputs


def _check(model: torch.nn.Module, cost_at: str) -> None:
    if cost_at not in ("last", "every"):
        raise CompileError(f'cost_at must be "last" or "every", not {cost_at!r}')
    if not callable(getattr(model, "cost", None)):
        name = type(model).__name__
        raise CompileError(f"{name} must define cost(self, q, y) to have a gradient, not {name} without it")


def _units(model: torch.nn.Module) -> int:
    (units,) = dict(getattr(model, "states", {})).values()
    return int(np.prod(units))


def _states(
    model: torch.nn.Module, values: Values, x: torch.Tensor, units: int, dt: float, substeps: int
) -> list[torch.Tensor]:
    """q after the last drift of every row, each (batch, units)."""
    force = torch.func.vmap(torch.func.grad(lambda q, u: call(model, "energy", values, q, u)))
    q = p = torch.zeros(len(x), units)
    states = []
    for row in range(x.shape[1]):
        for _ in range(substeps):
            q = q + dt * p
            p = p - dt * force(q, x[:, row])
        states.append(q)
    return states


def _outputs(
    model: torch.nn.Module, copied: torch.nn.Module, values: Values, states: Sequence[torch.Tensor]
) -> np.ndarray:
    """(batch, time, outputs)."""
    q = torch.stack([s.detach() for s in states], dim=1)
    if not callable(getattr(model, "predict", None)):
        rows = q.numpy()
        return numeric.readout(capture(model), rows.reshape(-1, rows.shape[-1])).reshape(*rows.shape[:2], -1)
    with float64(), torch.no_grad():
        predict = torch.func.vmap(torch.func.vmap(lambda s: call(copied, "predict", values, s)))
        return predict(q).numpy()


@dataclass(frozen=True)
class Trajectory:
    """The forward run of a batch: what calibration needs.

    ``q`` and ``u`` are the states and inputs of every kick, (steps, batch, size); the others are (lowest, highest).
    """

    q: np.ndarray
    u: np.ndarray
    q_range: tuple[float, float]
    p_range: tuple[float, float]
    z_ranges: tuple[tuple[float, float], ...]  # per coupling
    y_range: tuple[float, float]  # of the readout at the end of every row


def trajectory(network: Network, X: np.ndarray, dt: float, substeps: int) -> Trajectory:
    """The staggered leapfrog of a captured network over ``X`` (batch, time, inputs).

    Raises CompileError with the input row at which the states stop being finite.
    """
    x = np.asarray(X, np.float64)
    force = numeric.Force(network)
    q = p = np.zeros((len(x), network.units))
    states, momenta, inputs, z, y = [], [p], [], [], []
    for row in range(x.shape[1]):
        for _ in range(substeps):
            q = q + dt * p
            p = p - dt * force(q, x[:, row])
            states.append(q)
            momenta.append(p)
            inputs.append(x[:, row])
            z.append(force.rows(q, x[:, row]))
        y.append(numeric.readout(network, q))
        if not np.isfinite(p).all():
            raise CompileError(
                f"the dynamics diverge at input row {row}: make dt smaller (leapfrog needs dt^2 * lambda_max < 4) or "
                f"scale the weights, not dt={dt:g}"
            )
    per_coupling = zip(*z, strict=True)
    return Trajectory(
        np.stack(states), np.stack(inputs), _range(states), _range(momenta), tuple(map(_range, per_coupling)), _range(y)
    )


def _range(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    return min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)


def max_curvature(network: Network, run: Trajectory, points: int = 32) -> float:
    """The largest eigenvalue of d2V/dq2 at ``points`` states of ``run``: leapfrog needs dt^2 times it below 4.

    Exact up to 512 units, else the largest in magnitude by power iteration.
    """
    q, u = run.q.reshape(-1, network.units), run.u.reshape(-1, network.inputs)
    chosen = np.unique(np.linspace(0, len(q) - 1, points).astype(int))
    z = numeric.Force(network).rows(q[chosen], u[chosen])
    local = evaluate(derivative(derivative(network.local, "q"), "q"), {**network.values, "q": q[chosen]})
    local = np.broadcast_to(local, (len(chosen), network.units))
    curvature = [
        np.broadcast_to(evaluate(derivative(derivative(c.potential, "z"), "z"), {"z": rows}), rows.shape)
        for c, rows in zip(network.couplings, z, strict=True)
    ]
    matrices = [numeric.matrix(c.affine, network.values, network.units) for c in network.couplings]
    return max(_largest(local[i], matrices, [c[i] for c in curvature]) for i in range(len(chosen)))


def _largest(local: np.ndarray, matrices: Sequence[np.ndarray], curvature: Sequence[np.ndarray]) -> float:
    """Largest eigenvalue of ``diag(local) + sum W' diag(curvature) W``."""
    if len(local) <= _EXACT:
        hessian = np.diag(local)
        for w, c in zip(matrices, curvature, strict=True):
            hessian = hessian + w.T @ (c[:, None] * w)
        return float(np.linalg.eigvalsh(hessian)[-1])
    x = np.random.default_rng(0).normal(size=len(local))
    value = 0.0
    for _ in range(200):
        x /= np.linalg.norm(x)
        y = local * x
        for w, c in zip(matrices, curvature, strict=True):
            y = y + w.T @ (c * (w @ x))
        before, value, x = value, float(x @ y), y
        if abs(value - before) <= 1e-6 * abs(value):
            break
    return value
