"""The captured graph compared with autograd on the user's own code, at every compile."""

import copy
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import torch

from echolith.compiler import numeric
from echolith.compiler.derived import chained
from echolith.compiler.disagreement import explained, stateful
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Graph
from echolith.compiler.lines import raising, refusal
from echolith.compiler.trace import call, float64, parameters, shapes

__all__ = ["TOLERANCE", "check"]

TOLERANCE = 1e-8  # relative to the largest element; torch takes softplus for its argument above 20, 2e-9 off
_FLOOR = 1e-4  # below this size a gradient is compared absolutely: cancelling sums leave rounding errors
_REMEDY = "keep what is under log, sqrt, powers and quotients away from 0, e.g. sqrt(1 + x)"

Arrays = dict[str, np.ndarray]


def check(
    graph: Graph,
    model: torch.nn.Module,
    points: Iterable[tuple[np.ndarray, np.ndarray]] = (),
    rng: np.random.Generator | None = None,
) -> None:
    """Compares energies, cost and all gradients with autograd at the origin, at random points and at ``points``.

    ``model`` comes from ``trace.double``, none of its methods having run; ``points`` are pairs of states, flat and one
    after the other, and inputs.
    Raises CompileError where they disagree by more than `TOLERANCE`, and where the force is not finite at the origin.
    """
    _finite_at_rest(graph)
    _kinetic_at_rest(graph)
    rng = rng or np.random.default_rng(0)
    units, calls = sum(graph.states.values()), _Calls(model)
    random = [(rng.normal(size=units), rng.normal(size=graph.inputs)) for _ in range(3)]
    compared = np.zeros(2, int)  # energies, costs
    for flat, u in [*random, *points]:
        q = numeric.split(graph, np.asarray(flat, np.float64)[None])
        compared[0] += _energy(graph, calls, q, np.asarray(u, np.float64)[None])
        compared[1] += _cost(graph, calls, q, rng) if graph.cost else True
        if callable(getattr(model, "kinetic", None)):
            velocity, gradient = numeric.kinetic_gradient(graph, q)
            _compare(graph, calls, "kinetic", (numeric.kinetic(graph, q), velocity, gradient), q)
    for method, count in zip(("energy", "cost"), compared, strict=True):
        if not count:
            raise CompileError(f"{method}: must be finite near q = 0; {_REMEDY}, not inf or NaN at every point tried")


def _finite_at_rest(graph: Graph) -> None:
    units = sum(graph.states.values())
    start = numeric.Force(graph)(numeric.split(graph, np.zeros((1, units))), np.zeros((1, graph.inputs)))
    force = np.concatenate([f.ravel() for f in start.values()])
    if not np.isfinite(force).all():
        bad = force[~np.isfinite(force)][0]
        raise CompileError("energy: dV/dq must be finite at q = 0, u = 0, where every sample starts; "
                           f"{_REMEDY}, not {bad}")


def _kinetic_at_rest(graph: Graph) -> None:
    velocity, _ = numeric.kinetic_gradient(graph, {name: np.zeros((1, n)) for name, n in graph.states.items()})
    for bad in (v[~np.isfinite(v)] for v in velocity.values()):
        if bad.size:
            raise CompileError("kinetic: dT/dp must be finite at p = 0, where every sample starts; "
                               f"{_REMEDY}, not {bad[0]}")


def _energy(graph: Graph, calls: "_Calls", q: Arrays, u: np.ndarray) -> bool:
    found = numeric.energy(graph, q, u), numeric.Force(graph)(q, u), numeric.gradient(graph, q, u)
    return _compare(graph, calls, "energy", found, q, {"u": torch.tensor(u[0])})


def _cost(graph: Graph, calls: "_Calls", q: Arrays, rng: np.random.Generator) -> bool:
    target = rng.uniform(0.05, 0.95, (1, graph.outputs))
    given = torch.tensor(target[0])
    if graph.classes:
        target = rng.integers(graph.outputs, size=1)
        given = calls.target(q, torch.tensor(int(target[0])))
    found = numeric.cost(graph, q, target), *numeric.cost_gradient(graph, q, target)
    return _compare(graph, calls, "cost", found, q, {"y": given})


_Derivatives = tuple[np.ndarray, Arrays, Arrays]  # value, by state, by parameter


class _Calls:
    """The user's methods under autograd."""

    def __init__(self, model: torch.nn.Module):
        self.model, self.untouched = model, copy.deepcopy(model)
        self.functions: set[str] = set()  # methods found to be functions of their arguments

    def target(self, q: Arrays, number: torch.Tensor) -> torch.Tensor:
        """A class number in the shape that the cost takes: of one sample, or of a batch of one."""
        try:
            self.derivatives("cost", q, {"y": number})
        except (RuntimeError, IndexError, ValueError):
            return number.reshape(1)
        return number

    def derivatives(self, method: str, q: Arrays, others: Mapping[str, torch.Tensor]) -> _Derivatives:
        """(value, d/dstate, d/dparameter) of one method at one point."""
        learned = sorted(name for name, p in self.model.named_parameters() if p.requires_grad)
        values = {n: v.detach().clone().requires_grad_(n in learned) for n, v in parameters(self.model).items()}
        given = {n: v.requires_grad_() for n, v in self._states(q).items()}
        with float64(), torch.enable_grad():
            value = call(self.model, method, values, *(state * 1 for state in given.values()), *others.values())
            leaves = [*given.values(), *(values[name] for name in learned)]
            grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        arrays = [g.numpy() for g in grads]
        states = {name: g.reshape(1, -1) for name, g in zip(given, arrays, strict=False)}
        return value.detach().numpy()[None], states, dict(zip(learned, arrays[len(given):], strict=True))

    def checked(self, method: str, q: Arrays, others: Mapping[str, torch.Tensor]) -> _Derivatives:
        """The same; raises CompileError if autograd refuses the method."""
        try:
            return self.derivatives(method, q, others)
        except Exception as error:  # whatever the user's code raises now, but did not when it was traced
            raise self.blamed(method, q, others) or refusal(
                method, raising(error.__traceback__), f"the method raised {type(error).__name__} under autograd",
                "write it in torch functions that autograd knows", error) from error

    def function(self, method: str, q: Arrays, others: Mapping[str, torch.Tensor]) -> None:
        """Raises CompileError if the method remembers earlier calls."""
        if method not in self.functions:
            self.functions.add(method)
            if (refused := stateful(self.untouched, method, {**self._states(q), **others})) is not None:
                raise refused

    def blamed(self, method: str, q: Arrays, others: Mapping[str, torch.Tensor]) -> CompileError | None:
        """What the method does wrong at a point where its derivatives are not those of the captured network."""
        return explained(self.untouched, method, {**self._states(q), **others})

    def _states(self, q: Arrays) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(q[name][0].reshape(shape)) for name, shape in shapes(self.model).items()}


def _compare(graph: Graph, calls: _Calls, method: str, found: _Derivatives, q: Arrays,
             others: Mapping[str, torch.Tensor] = MappingProxyType({})) -> bool:  # fmt: skip
    """False, without comparing, where PyTorch's own value or derivatives are not finite."""
    expected = calls.checked(method, q, others)
    calls.function(method, q, others)
    by_state = "velocity" if method == "kinetic" else "dV/dq" if method == "energy" else "dcost/dq"
    if not all(np.isfinite(v).all() for v in (expected[0], *expected[1].values())):
        return False
    try:
        _same(method, "value", found[0], expected[0])
        for name, value in expected[1].items():
            label = by_state if len(graph.states) == 1 else f"{by_state} of {name}"
            _same(method, label, found[1][name], value)
        gradients = chained(graph.derived, found[2], graph.values, graph.learned)
        for name, value in expected[2].items():
            _same(method, f"gradient of {name}", gradients.get(name, np.zeros_like(value)), value)
    except CompileError as error:
        raise calls.blamed(method, q, others) or error from error
    return True


def _same(method: str, what: str, found: np.ndarray, expected: np.ndarray) -> None:
    scale = max(float(np.max(np.abs(expected), initial=0.0)), _FLOOR)
    error = float(np.max(np.abs(found - expected), initial=0.0)) / scale
    if not error <= TOLERANCE:
        raise CompileError(
            f"{method}: {what} of the captured network must equal autograd within {TOLERANCE:g}; this is a defect of "
            f"the compiler or an in-place write in the method, not a relative error of {error:.3g}"
        )
