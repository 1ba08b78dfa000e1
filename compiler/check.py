"""The captured graph compared with autograd on the user's own code, at every compile."""

from collections.abc import Iterable

import numpy as np
import torch

from echolith.compiler import numeric
from echolith.compiler.derived import chained
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Graph
from echolith.compiler.trace import call, float64, parameters, shapes

__all__ = ["TOLERANCE", "check"]

TOLERANCE = 1e-9  # relative to the largest element
_FLOOR = 1e-4  # below this size a gradient is compared absolutely: cancelling sums leave rounding errors

Arrays = dict[str, np.ndarray]


def check(
    graph: Graph,
    model: torch.nn.Module,
    points: Iterable[tuple[np.ndarray, np.ndarray]] = (),
    rng: np.random.Generator | None = None,
) -> None:
    """Compares energies, cost and all gradients with autograd at the origin, at random points and at ``points``.

    ``model`` comes from ``trace.double``; ``points`` are pairs of states, flat and one after the other, and inputs.
    Raises CompileError where they disagree by more than `TOLERANCE`, and where the force is not finite at the origin.
    """
    rng = rng or np.random.default_rng(0)
    units = sum(graph.states.values())
    start = numeric.Force(graph)(numeric.split(graph, np.zeros((1, units))), np.zeros((1, graph.inputs)))
    force = np.concatenate([f.ravel() for f in start.values()])
    if not np.isfinite(force).all():
        bad = force[~np.isfinite(force)][0]
        raise CompileError(f"energy: dV/dq must be finite at q = 0, u = 0, where every sample starts, not {bad}")
    random = [(rng.normal(size=units), rng.normal(size=graph.inputs)) for _ in range(3)]
    compared = 0
    for flat, u in [*random, *points]:
        q = numeric.split(graph, np.asarray(flat, np.float64)[None])
        compared += _energy(graph, model, q, np.asarray(u, np.float64)[None])
        if graph.cost:
            _cost(graph, model, q, rng)
        if callable(getattr(model, "kinetic", None)):
            velocity, gradient = numeric.kinetic_gradient(graph, q)
            expected = _autograd(model, "kinetic", q)
            _compare(graph, "kinetic", (numeric.kinetic(graph, q), velocity, gradient), expected)
    if not compared:
        raise CompileError("energy: must be finite near q = 0, not inf or NaN at every point tried")


def _energy(graph: Graph, model: torch.nn.Module, q: Arrays, u: np.ndarray) -> bool:
    found = numeric.energy(graph, q, u), numeric.Force(graph)(q, u), numeric.gradient(graph, q, u)
    return _compare(graph, "energy", found, _autograd(model, "energy", q, torch.tensor(u[0])))


def _cost(graph: Graph, model: torch.nn.Module, q: Arrays, rng: np.random.Generator) -> None:
    target = rng.uniform(0.05, 0.95, (1, graph.outputs))
    given = torch.tensor(target[0])
    if graph.classes:
        target = rng.integers(graph.outputs, size=1)
        given = torch.tensor(int(target[0]))
    try:
        expected = _autograd(model, "cost", q, given)
    except (RuntimeError, IndexError, ValueError):  # the class number of a batch of one
        expected = _autograd(model, "cost", q, given.reshape(1))
    found = numeric.cost(graph, q, target), *numeric.cost_gradient(graph, q, target)
    _compare(graph, "cost", found, expected)


_Derivatives = tuple[np.ndarray, Arrays, Arrays]  # value, by state, by parameter


def _autograd(model: torch.nn.Module, method: str, q: Arrays, *others: torch.Tensor) -> _Derivatives:
    """(value, d/dstate, d/dparameter) of one method at one point."""
    learned = sorted(name for name, p in model.named_parameters() if p.requires_grad)
    values = {name: v.detach().clone().requires_grad_(name in learned) for name, v in parameters(model).items()}
    given = {n: torch.tensor(q[n][0].reshape(shape), requires_grad=True) for n, shape in shapes(model).items()}
    with float64(), torch.enable_grad():
        value = call(model, method, values, *(state * 1 for state in given.values()), *others)
        leaves = [*given.values(), *(values[name] for name in learned)]
        grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
    arrays = [g.numpy() for g in grads]
    states = {name: g.reshape(1, -1) for name, g in zip(given, arrays, strict=False)}
    return value.detach().numpy()[None], states, dict(zip(learned, arrays[len(given):], strict=True))


def _compare(graph: Graph, method: str, found: _Derivatives, expected: _Derivatives) -> bool:
    """False, without comparing, where PyTorch's own value or derivatives are not finite."""
    by_state = "velocity" if method == "kinetic" else "dV/dq" if method == "energy" else "dcost/dq"
    if not all(np.isfinite(v).all() for v in (expected[0], *expected[1].values())):
        return False
    _same(method, "value", found[0], expected[0])
    for name, value in expected[1].items():
        label = by_state if len(graph.states) == 1 else f"{by_state} of {name}"
        _same(method, label, found[1][name], value)
    gradients = chained(graph.derived, found[2], graph.values, graph.learned)
    for name, value in expected[2].items():
        _same(method, f"gradient of {name}", gradients.get(name, np.zeros_like(value)), value)
    return True


def _same(method: str, what: str, found: np.ndarray, expected: np.ndarray) -> None:
    scale = max(float(np.max(np.abs(expected), initial=0.0)), _FLOOR)
    error = float(np.max(np.abs(found - expected), initial=0.0)) / scale
    if not error <= TOLERANCE:
        raise CompileError(
            f"{method}: {what} of the captured network must equal autograd within {TOLERANCE:g}; this is a defect of "
            f"the compiler or an in-place write in the method, not a relative error of {error:.3g}"
        )
