"""The float64 oracle: the user's own code under autograd through the leapfrog, and the captured graph in numpy.

One substep is ``q += dt*dT/dp; p -= dt*dV/dq(q, u_t)`` from q = p = 0. ``Y`` meets the state right after the drift
of the last substep of an input row.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from echolith.compiler import numeric
from echolith.compiler.capture import capture
from echolith.compiler.differentiate import derivative, evaluate
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Graph
from echolith.compiler.stack import Stack
from echolith.compiler.stacked import stack_bptt
from echolith.compiler.trace import call, double, float64, parameters, shapes

__all__ = ["Trajectory", "bptt", "max_curvature", "trajectory"]

Values = dict[str, torch.Tensor]
Range = tuple[float, float]
_EXACT = 512  # units up to which the Hessian is formed and diagonalised


def bptt(
    model: torch.nn.Module, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int, cost_at: str = "last",
    mask: np.ndarray | None = None, dissipation: float = 0.0,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Backpropagation through time on a float64 copy of ``model``.

    Parameters
    ----------
    X
        Inputs, (batch, time, inputs).
    Y
        Targets, (batch, outputs); with ``cost_at="every"`` (batch, time, outputs). Class numbers, an array of a whole
        type, without the last axis.
    cost_at
        ``"last"``: the cost at the last row. ``"every"``: the sum of the costs at all rows. ``"mean"``: their mean.
    mask
        Factors of the costs, (batch,) or (batch, time).
    dissipation
        Rate at which momenta decay, half a step of it before every drift and half behind; not of stacks.

    Returns
    -------
    The gradient of the batch mean of the cost, by name of the parameters that learn, and the outputs, (batch, outputs)
    or (batch, time, outputs): ``predict`` where the model has it, else the readout of its cost, else the states, one
    after the other.
    """
    if isinstance(model, Stack):
        if dissipation:
            raise CompileError(f"dissipation is of single networks; leave it at 0 for stacks, not {dissipation!r}")
        return stack_bptt(model, X, Y, dt, substeps, cost_at, mask)
    _check(model, cost_at)
    copied = double(model)
    learned = [name for name, p in copied.named_parameters() if p.requires_grad]
    values = {name: v.detach().clone().requires_grad_(name in learned) for name, v in parameters(copied).items()}
    x, y = torch.as_tensor(np.asarray(X, np.float64)), torch.as_tensor(_targets(model, Y, cost_at))
    cost = torch.func.vmap(_method(copied, "cost", values))
    given = np.ones(y.shape[:1 if cost_at == "last" else 2]) if mask is None else np.asarray(mask, np.float64)
    weight = torch.as_tensor(given)
    with float64(), torch.enable_grad():
        states = _states(copied, values, x, dt, substeps, math.exp(-dissipation * dt / 2))
        if cost_at == "last":
            total = (cost(*states[-1], y) * weight).mean()
        else:
            costs = (cost(*q, y[:, row]) * weight[:, row] for row, q in enumerate(states))
            total = sum((c.mean() for c in costs), torch.zeros(()))
            total = total / len(states) if cost_at == "mean" else total
        leaves = [values[name] for name in learned]
        gradients = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    outputs = _outputs(model, copied, values, states)
    found = {name: g.numpy() for name, g in zip(learned, gradients, strict=True)}
    return found, outputs[:, -1] if cost_at == "last" else outputs


def _targets(model: torch.nn.Module, Y: np.ndarray, cost_at: str) -> np.ndarray:
    """Class numbers, whole numbers without the axis of the outputs, stay whole."""
    y = np.asarray(Y)
    axes = 2 if cost_at == "last" else 3
    vectors = y.ndim == axes and y.shape[-1] == getattr(model, "outputs", y.shape[-1])
    return y.astype(np.int64 if y.dtype.kind in "iu" and not vectors else np.float64)


def _check(model: torch.nn.Module, cost_at: str) -> None:
    if cost_at not in ("last", "every", "mean"):
        raise CompileError(f'cost_at must be "last", "every" or "mean", not {cost_at!r}')
    if not callable(getattr(model, "cost", None)):
        name = type(model).__name__
        raise CompileError(f"{name} must define cost(self, q, y) to have a gradient, not {name} without it")


def _method(model: torch.nn.Module, name: str, values: Values) -> Callable[..., torch.Tensor]:
    return lambda *arguments: call(model, name, values, *arguments)


def _states(
    model: torch.nn.Module, values: Values, x: torch.Tensor, dt: float, substeps: int, decay: float
) -> list[tuple[torch.Tensor, ...]]:
    """The states after the last drift of every row, each (batch, *shape). Momenta decay before every drift and behind
    it."""
    sizes = list(shapes(model).values())
    order = tuple(range(len(sizes)))
    kick = torch.func.vmap(torch.func.grad(_method(model, "energy", values), order))
    drift = torch.func.vmap(torch.func.grad(_method(model, "kinetic", values), order))
    q = tuple(torch.zeros(len(x), *size) for size in sizes)
    p, states = q, []
    for row in range(x.shape[1]):
        for _ in range(substeps):
            p = tuple(decay * a for a in p)
            velocity = drift(*p) if callable(getattr(model, "kinetic", None)) else p
            q = tuple(a + dt * v for a, v in zip(q, velocity, strict=True))
            p = tuple(decay * a - dt * f for a, f in zip(p, kick(*q, x[:, row]), strict=True))
        states.append(q)
    return states


def _outputs(
    model: torch.nn.Module, copied: torch.nn.Module, values: Values, states: Sequence[tuple[torch.Tensor, ...]]
) -> np.ndarray:
    """(batch, time, outputs)."""
    rows = [tuple(q.detach() for q in row) for row in states]
    if not callable(getattr(model, "predict", None)):
        graph = capture(model)
        flat = ({n: q.reshape(len(q), -1).numpy() for n, q in zip(graph.states, row, strict=True)} for row in rows)
        return np.stack([numeric.readout(graph, q) for q in flat], axis=1)
    with float64(), torch.no_grad():
        predict = torch.func.vmap(_method(copied, "predict", values))
        return np.stack([predict(*row).numpy() for row in rows], axis=1)


@dataclass(frozen=True)
class Trajectory:
    """The forward run of a batch: what calibration needs.

    ``q`` (by state) and ``u`` are the states and inputs of every kick, (steps, batch, size); the others are (lowest,
    highest), by name.
    """

    q: dict[str, np.ndarray]
    u: np.ndarray
    q_ranges: dict[str, Range]
    p_ranges: dict[str, Range]
    node_ranges: dict[str, Range]
    y_range: Range  # of the readout at the end of every row


def trajectory(graph: Graph, X: np.ndarray, dt: float, substeps: int) -> Trajectory:
    """The staggered leapfrog of a captured graph over ``X`` (batch, time, inputs).

    Raises CompileError with the input row at which the states stop being finite.
    """
    x = np.asarray(X, np.float64)
    force = numeric.Force(graph)
    q = p = {name: np.zeros((len(x), units)) for name, units in graph.states.items()}
    states, momenta, inputs, nodes, y = [], [p], [], [], []
    for row in range(x.shape[1]):
        for _ in range(substeps):
            velocity, _ = numeric.kinetic_gradient(graph, p)
            q = {name: q[name] + dt * velocity[name] for name in q}
            slopes = force(q, x[:, row])
            p = {name: p[name] - dt * slopes[name] for name in p}
            states.append(q)
            momenta.append(p)
            inputs.append(x[:, row])
            nodes.append(numeric.nodes(graph, q, x[:, row]))
        y.append(numeric.readout(graph, q))
        if not all(np.isfinite(v).all() for v in p.values()):
            raise CompileError(
                f"the dynamics diverge at input row {row}: make dt smaller (leapfrog needs dt^2 * lambda_max < 4) or "
                f"scale the weights, not dt={dt:g}"
            )
    stacked = {name: np.stack([s[name] for s in states]) for name in graph.states}
    return Trajectory(stacked, np.stack(inputs), _ranges(states), _ranges(momenta), _ranges(nodes), _range(y))


def _ranges(steps: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Range]:
    return {name: _range([step[name] for step in steps]) for name in steps[0]}


def _range(arrays: Sequence[np.ndarray]) -> Range:
    return min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)


def max_curvature(graph: Graph, run: Trajectory, points: int = 32) -> float:
    """The largest eigenvalue of M^-1/2 d2V/dq2 M^-1/2 at ``points`` states of ``run``, with 1/M = d2T/dp2 at p = 0:
    leapfrog needs dt^2 times it below 4.

    Exact up to 512 units, else the largest in magnitude by power iteration.
    """
    u = run.u.reshape(-1, graph.inputs)
    chosen = np.unique(np.linspace(0, len(u) - 1, points).astype(int))
    force = numeric.Force(graph)
    root = _root_inverse_mass(graph)
    found = []
    for i in chosen:
        q = {name: value.reshape(-1, value.shape[-1])[i : i + 1] for name, value in run.q.items()}

        def product(x: np.ndarray, q=q, i=i) -> np.ndarray:
            """Rows of ``x``, (rows, units), times the scaled Hessian."""
            batch = {name: np.repeat(value, len(x), axis=0) for name, value in q.items()}
            directions = numeric.split(graph, x * root)
            y = force.along(batch, np.repeat(u[i : i + 1], len(x), axis=0), directions)
            return np.concatenate(list(y.values()), axis=1) * root

        found.append(_largest(product, len(root)))
    return max(found)


def _root_inverse_mass(graph: Graph) -> np.ndarray:
    """sqrt(d2T/dp2) of every unit at rest."""
    parts = []
    for name, units in graph.states.items():
        slope = derivative(derivative(graph.kinetic[name], "p"), "p")
        flat = {parameter: value.reshape(-1) for parameter, value in graph.values.items()}
        parts.append(np.broadcast_to(np.sqrt(evaluate(slope, {**flat, "p": np.zeros(units)})), units))
    return np.concatenate(parts)


def _largest(product: Callable[[np.ndarray], np.ndarray], units: int) -> float:
    """The largest eigenvalue of the symmetric matrix that ``product`` multiplies by."""
    if units <= _EXACT:
        hessian = product(np.eye(units))
        return float(np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1])
    x = np.random.default_rng(0).normal(size=(1, units))
    value = 0.0
    for _ in range(200):
        x /= np.linalg.norm(x)
        y = product(x)
        before, value, x = value, float(np.sum(x * y)), y
        if abs(value - before) <= 1e-6 * abs(value):
            break
    return value
