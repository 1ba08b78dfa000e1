"""From the user's module to a `Graph`: trace the methods, read them, make them canonical, check against autograd."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from echolith.compiler.canonical import Canonical, split
from echolith.compiler.check import check
from echolith.compiler.differentiate import evaluate, names
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Graph, Sum
from echolith.compiler.ir import Expr, const, var
from echolith.compiler.loops import rolled
from echolith.compiler.momenta import separated
from echolith.compiler.ops import intern, mul, power
from echolith.compiler.prune import prune
from echolith.compiler.read import read
from echolith.compiler.readout import Readout, find_readout, predicted
from echolith.compiler.scalars import whole
from echolith.compiler.site import Site
from echolith.compiler.taken import ARGUMENTS
from echolith.compiler.trace import double, parameters, trace
from echolith.compiler.values import Array, Classes, Fixed, Nodes, Store, Value

__all__ = ["capture"]

_UNITS = 1 << 16
_METHODS = "energy(self, q, u), a scalar in PyTorch"


def capture(model: torch.nn.Module, points: Iterable[tuple[np.ndarray, np.ndarray]] = ()) -> Graph:
    """The graph that ``model`` describes; ``model`` is not changed.

    Parameters
    ----------
    model
        A module with ``states`` (units or shape by name), ``inputs``, ``energy(q1, q2, ..., u)`` with the states in
        order and, where they apply, ``kinetic(p1, p2, ...)``, ``outputs``, ``cost(q1, q2, ..., y)`` and
        ``predict(q1, q2, ...)``.
    points
        States, one after the other and flat, and inputs, shapes (units,) and (inputs,), at which the result is
        compared with autograd in addition to a few random ones.

    Raises
    ------
    CompileError
        The model is not of the supported form; the text names method, operation, source line and remedy.
    """
    sizes = _sizes(model)
    reader = _Reader(double(model), sizes)
    energy = _energy(reader)
    kinetic = _kinetic(reader)
    readout, classes = _cost(reader)
    graph = prune(
        Graph(
            {name: prod(shape) for name, shape in sizes.states.items()}, sizes.inputs, sizes.outputs, kinetic,
            reader.nodes.nodes, energy, readout.form, readout.cost_nodes, readout.cost, classes,
            reader.store.values, reader.store.learned, tuple(reader.store.derived.values()),
        )
    )  # fmt: skip
    check(graph, double(model), points)  # of its own: a method may have kept something while it was traced
    return graph


@dataclass(frozen=True)
class _Sizes:
    states: dict[str, tuple[int, ...]]
    inputs: int
    outputs: int


def _sizes(model: torch.nn.Module) -> _Sizes:
    """Shapes and widths as the model declares them."""
    name = type(model).__name__
    for method in ("energy", "kinetic", "cost", "predict"):
        given = getattr(model, method, None)
        if given is not None and not callable(given):
            raise CompileError(f"{name}.{method} must be a method, not {given!r:.60}")
    if not callable(getattr(model, "energy", None)):
        raise CompileError(f"{name} must define {_METHODS}, not {name} without it")
    states = _states(name, getattr(model, "states", None))
    if sum(map(prod, states.values())) > _UNITS:
        raise CompileError(f"{name}.states must have at most {_UNITS} units in all, not {dict(states)!r}")
    inputs = getattr(model, "inputs", None)
    inputs = _positive(inputs, f"{name}.inputs must be the width of u, a positive integer, not {inputs!r}")
    needed = callable(getattr(model, "cost", None)) or callable(getattr(model, "predict", None))
    outputs = getattr(model, "outputs", None if needed else sum(map(prod, states.values())))
    outputs = _positive(outputs, f"{name}.outputs must be the width of y, a positive integer, not {outputs!r}")
    return _Sizes(states, inputs, outputs)


def _states(model: str, states: object) -> dict[str, tuple[int, ...]]:
    if not isinstance(states, Mapping) or not states:
        raise CompileError(f'{model}.states must map names to units or shapes, e.g. {{"q": 40}}, not {states!r}')
    found = {}
    for name, shape in states.items():
        if not isinstance(name, str) or not name.isidentifier() or ARGUMENTS.fullmatch(name):
            raise CompileError(
                f"{model}.states must have names of their own (u, y, p, target, z0 and c0 are taken), not {name!r}"
            )
        axes = shape if isinstance(shape, tuple | list) and shape else (shape,)
        message = f"{model}.states must give positive numbers of units, not {dict(states)!r}"
        found[name] = tuple(_positive(size, message) for size in axes)
    return found


def _positive(value: Any, message: str) -> int:
    found = whole(value, 1)
    if found is None:
        raise CompileError(message)
    return found


class _Reader:
    """Reads the methods of a float64 model into expressions over one set of canonical nodes."""

    def __init__(self, model: torch.nn.Module, sizes: _Sizes):
        self.model, self.sizes = model, sizes
        values = parameters(model)
        for name in values:
            if name in sizes.states or ARGUMENTS.fullmatch(name):
                raise CompileError(
                    f"{name} must not be the name of a parameter: it is a variable of the energy, not {name!r}"
                )
        self.integers = {n: v for n, v in values.items() if not v.is_floating_point()}
        arrays = {n: v.detach().to(torch.float64).numpy() for n, v in values.items()}
        given = {n: prod(shape) for n, shape in sizes.states.items()} | {"u": sizes.inputs, "target": sizes.outputs}
        self.store = Store(arrays, (n for n, p in model.named_parameters() if p.requires_grad), given)
        self.nodes = Nodes(given)

    def has(self, method: str) -> bool:
        return callable(getattr(self.model, method, None))

    def arguments(self, prefix: str = "") -> dict[str, tuple[torch.Tensor, Value]]:
        """Samples and values of the states."""
        shapes = self.sizes.states
        return {prefix + n: (_sample(shape), Array(shape, intern(var(n)))) for n, shape in shapes.items()}

    def vector(self, name: str, size: int) -> tuple[torch.Tensor, Value]:
        return _sample((size,)), Array((size,), intern(var(name)))

    def read(
        self, method: str, arguments: Mapping[str, tuple[torch.Tensor, Value]], readout: bool = False
    ) -> tuple[Site, Expr]:
        """The canonical expression of what ``method`` returns."""
        traced = trace(self.model, method, {n: sample for n, (sample, _) in arguments.items()})
        site, value = read(traced, self.store, {n: v for n, (_, v) in arguments.items()}, self.integers)
        if method != "predict" and site.shape != ():
            raise site.refuse(f"the {method} must be a scalar", "sum it with .sum()", f"shape {site.shape}")
        if not isinstance(value, Array | Fixed):
            raise site.refuse(f"the {method} must be one tensor", "return one tensor", type(value).__name__)
        array = site.array(value)
        joined = frozenset(self.sizes.states) if readout else frozenset()
        return site, Canonical(self.store, self.nodes, joined).expr(array.expr, array.size)


def _sample(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.linspace(0.1, 0.9, prod(shape), dtype=torch.float64).reshape(shape)


def _energy(reader: _Reader) -> tuple[Sum, ...]:
    site, expr = reader.read("energy", reader.arguments() | {"u": reader.vector("u", reader.sizes.inputs)})
    terms = rolled(reader.store, reader.nodes, split(reader.nodes, expr))
    moving = [t for t in terms if reader.nodes.given(t.expr) - {"u"}]
    if not moving:
        raise site.refuse("the energy does not depend on the states", "use the states", "a constant")
    for term in terms:
        frozen = not names(term.expr) & {*reader.store.learned, "u", *reader.nodes.nodes}
        if not frozen and term not in moving:
            raise site.refuse("a term does not depend on the states", "remove it: it moves no state", term.expr)
    return tuple(t if t in moving else Sum(const(_number(reader.store, t)), 1) for t in terms)


def _number(store: Store, term: Sum) -> float:
    """The value of a term of frozen parameters."""
    flat = {name: store.values[name].reshape(-1) for name in names(term.expr)}
    return float(np.broadcast_to(evaluate(term.expr, flat), (term.length,)).sum())


def _kinetic(reader: _Reader) -> dict[str, Expr]:
    """By state, over var("p")."""
    if not reader.has("kinetic"):
        return {name: mul(0.5, power(intern(var("p")), 2)) for name in reader.sizes.states}
    prefix = "p_" if len(reader.sizes.states) > 1 else "p"
    arguments = reader.arguments(prefix)
    if prefix == "p":
        arguments = {"p": next(iter(arguments.values()))}
    site, expr = reader.read("kinetic", arguments)
    units = {name: reader.nodes.lengths[name] for name in reader.sizes.states}
    found = separated(reader.store, reader.nodes, units, split(reader.nodes, expr), site.line)
    if isinstance(found, Expr):
        of = " and ".join(sorted(reader.nodes.given(found))) if len(units) > 1 else ""
        raise site.refuse(f"the kinetic energy{of and f' of {of}'} is not separable",
                          "sum functions of single momenta, e.g. (p**2 / m).sum() / 2", found)
    for state in reader.sizes.states:
        if "p" not in names(found.get(state, const(0))):
            raise site.refuse(f"the kinetic energy does not depend on the momenta of {state}", "add p**2 / 2", "it")
    return {state: found[state] for state in reader.sizes.states}


def _cost(reader: _Reader) -> tuple[Readout, bool]:
    """The readout and the cost over it; whether targets are class numbers."""
    predict = None
    if reader.has("predict"):
        site, expr = reader.read("predict", reader.arguments(), readout=True)
        predict = predicted(site, reader.nodes, expr, reader.sizes.outputs, reader.store, len(reader.sizes.states))
    if not reader.has("cost"):
        return Readout(predict.form if predict else None), False
    targets = [reader.vector("target", reader.sizes.outputs)]
    targets += [(torch.zeros(shape, dtype=torch.int64), Classes(shape)) for shape in ((), (1,))]
    errors: list[CompileError] = []
    for target in targets:
        with warnings.catch_warnings(record=True) as told:  # of a kind of target that it is not, there is none to show
            try:
                site, expr = reader.read("cost", reader.arguments() | {"y": target}, readout=True)
            except CompileError as error:
                errors.append(error)
                continue
        for warning in told:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        found = find_readout(site, reader.nodes, expr, predict, reader.sizes.outputs, reader.store,
                             isinstance(target[1], Classes))
        return found, isinstance(target[1], Classes)
    read = [e for e in errors[1:] if e.__cause__ is None]  # PyTorch wants a class, and the reader says what is missing
    asked = errors[0].__cause__ is not None or "`_to_copy`" in str(errors[0])  # y.long()
    raise read[0] if asked and read and "as a number" not in str(read[0]) else errors[0]
