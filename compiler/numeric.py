"""A captured graph evaluated in float64 numpy: energy, force, kinetic energy, readout, cost, and all gradients.

Arrays carry a leading batch axis: every state (batch, units) by name, u (batch, inputs), target (batch, outputs).
The reverse walk is written once, over numbers or over dual numbers: with the latter it gives Hessian-vector products.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from echolith.compiler import convolve
from echolith.compiler.differentiate import derivative, evaluate, names
from echolith.compiler.graph import Affine, Convolution, Dense, Graph, Index, Matrix, Reduce, Sum, Term
from echolith.compiler.ir import Expr
from echolith.compiler.steps import added, dense

__all__ = ["Force", "States", "cost", "cost_gradient", "energy", "gradient", "kinetic", "kinetic_gradient",
           "nodes", "readout", "split"]

States = Mapping[str, np.ndarray]


@dataclass
class _Dual:
    """A value and its derivative in one direction."""

    value: np.ndarray
    slope: np.ndarray

    def __add__(self, other: "_Dual") -> "_Dual":
        return _Dual(self.value + other.value, self.slope + other.slope)

    def __mul__(self, other: Any) -> "_Dual":
        if not isinstance(other, _Dual):
            return _Dual(self.value * other, self.slope * other)
        return _Dual(self.value * other.value, self.value * other.slope + self.slope * other.value)


_Number = Any  # np.ndarray or _Dual


def _linear(function: Callable[[np.ndarray], np.ndarray], x: _Number) -> _Number:
    return _Dual(function(x.value), function(x.slope)) if isinstance(x, _Dual) else function(x)


class _Slopes:
    """Derivatives of expressions, each found once."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], tuple[Expr, Expr]] = {}

    def __call__(self, expr: Expr, name: str) -> Expr:
        key = (id(expr), name)
        if key not in self._found:
            self._found[key] = (expr, derivative(expr, name))
        return self._found[key][1]


class Force:
    """dV/dq by state, with the symbolic work done once."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self._walk = _Walk(graph, graph.nodes, graph.energy)

    def __call__(self, q: States, u: np.ndarray) -> dict[str, np.ndarray]:
        found = self._walk.backward(self._walk.forward({**q, "u": u}))
        return {name: _full(found.get(name, 0.0), q[name].shape) for name in self.graph.states}

    def along(self, q: States, u: np.ndarray, direction: States) -> dict[str, np.ndarray]:
        """The Hessian times ``direction``, by state."""
        given = {name: _Dual(q[name], direction[name]) for name in q} | {"u": _Dual(u, np.zeros_like(u))}
        found = self._walk.backward(self._walk.forward(given))
        zero = _Dual(np.zeros(()), np.zeros(()))
        return {name: _full(found.get(name, zero).slope, q[name].shape) for name in self.graph.states}


class _Walk:
    """Sums over vectors and nodes: their value, and their derivatives by vector and by parameter."""

    def __init__(self, graph: Graph, nodes: Mapping[str, Affine | Reduce], sums: tuple[Sum, ...]):
        self.graph, self.nodes, self.sums = graph, nodes, sums
        self.flat = {name: value.reshape(-1) for name, value in graph.values.items()}
        self.slopes = _Slopes()

    @np.errstate(all="ignore")  # inf and NaN are for the caller to judge, as in `evaluate`
    def forward(self, given: Mapping[str, _Number]) -> dict[str, _Number]:
        """All vectors by name."""
        env = dict(given)
        for name, node in self.nodes.items():
            env[name] = self.affine(node, env) if isinstance(node, Affine) else self._reduce(node, env)
        return env

    def affine(self, form: Affine, env: Mapping[str, _Number]) -> _Number:
        first = next(iter(env.values()))
        shape = ((first.value if isinstance(first, _Dual) else first).shape[0], form.length)
        bias = sum((b.scale * self.flat[b.parameter] for b in form.biases), np.zeros(()))
        total: _Number = np.broadcast_to(bias, shape)
        total = _Dual(total, np.zeros(shape)) if isinstance(first, _Dual) else total
        for term in form.terms:
            columns = self.columns(term, env)
            x = self.value(term.source, env, columns)
            total = total + _linear(lambda v, m=term.matrix: _apply(m, self.graph.values, v), x) * term.scale
        return total

    def columns(self, term: Term, env: Mapping[str, _Number]) -> int:
        """Elements of the vector that a term's matrix is applied to."""
        if isinstance(term.matrix, Dense):
            return dense(term.matrix, self.graph.values).shape[1]
        if isinstance(term.matrix, Convolution):
            return int(np.prod(term.matrix.source_shape))
        vectors = [env[n] if n in env else self.flat[n] for n in names(term.source)]
        return max(((v.value if isinstance(v, _Dual) else v).shape[-1] for v in vectors), default=1)

    def value(self, expr: Expr, env: Mapping[str, _Number], length: int) -> _Number:
        """``expr`` as (batch, length)."""
        batch = next(iter(env.values()))
        if not isinstance(batch, _Dual):
            return np.broadcast_to(evaluate(expr, {**self.flat, **env}), (batch.shape[0], length))
        shape = (batch.value.shape[0], length)
        values = {**self.flat, **{n: v.value for n, v in env.items()}}
        slope = np.zeros(shape)
        for name in names(expr) & set(env):
            slope = slope + evaluate(self.slopes(expr, name), values) * env[name].slope
        return _Dual(np.broadcast_to(evaluate(expr, values), shape), slope)

    def _reduce(self, node: Reduce, env: Mapping[str, _Number]) -> _Number:
        x = self.value(node.expr, env, node.length)
        if node.kind == "sum":
            return _linear(lambda v: v.sum(axis=1, keepdims=True), x)
        value = x.value if isinstance(x, _Dual) else x
        top = value.max(axis=1, keepdims=True)
        total = top + np.log(np.exp(value - top).sum(axis=1, keepdims=True))
        if not isinstance(x, _Dual):
            return total
        return _Dual(total, (np.exp(value - total) * x.slope).sum(axis=1, keepdims=True))

    def total(self, env: Mapping[str, _Number]) -> np.ndarray:
        """The sums' value, (batch,)."""
        batch = next(iter(env.values())).shape[0]
        return sum((self.value(s.expr, env, s.length).sum(axis=1) for s in self.sums), np.zeros(batch))

    @np.errstate(all="ignore")
    def backward(
        self, env: Mapping[str, _Number], parameters: dict[str, np.ndarray] | None = None,
        start: Mapping[str, _Number] | None = None,
    ) -> dict[str, _Number]:  # fmt: skip
        """Derivatives by vector, of the sums or continuing from those in ``start``; adds those by learned parameter,
        flat and summed over the batch, to ``parameters``."""
        found: dict[str, _Number] = dict(start or {})
        if start is None:
            for s in self.sums:
                self._expr(s.expr, env, s.length, None, found, parameters)
        for name, node in reversed(list(self.nodes.items())):
            if name not in found:
                continue
            if isinstance(node, Affine):
                self.transposed(node, env, found[name], found, parameters)
            else:
                seed = found[name]
                if node.kind == "logsumexp":
                    seed = self._softmax(node, env, env[name]) * seed
                self._expr(node.expr, env, node.length, seed, found, parameters)
        return found

    def _softmax(self, node: Reduce, env: Mapping[str, _Number], level: _Number) -> _Number:
        x = self.value(node.expr, env, node.length)
        if not isinstance(x, _Dual):
            return np.exp(x - level)
        value = np.exp(x.value - level.value)
        return _Dual(value, value * (x.slope - level.slope))

    @np.errstate(all="ignore")
    def transposed(
        self, form: Affine, env: Mapping[str, _Number], seed: _Number, found: dict[str, _Number],
        parameters: dict[str, np.ndarray] | None,
    ) -> None:  # fmt: skip
        """Derivatives through an affine form, given those by its elements."""
        values, learned = self.graph.values, self.graph.learned
        for term in form.terms:
            columns = self.columns(term, env)
            back = _linear(lambda v, m=term.matrix, n=columns: _transpose(m, values, v, n), seed) * term.scale
            self._expr(term.source, env, columns, back, found, parameters)
            if parameters is not None and not isinstance(term.matrix, Index) and term.matrix.parameter in learned:
                x = self.value(term.source, env, columns)
                _grow(parameters, term.matrix.parameter, term.scale * _outer(term.matrix, values, seed, x).reshape(-1))
        for bias in form.biases if parameters is not None else ():
            if bias.parameter in learned:
                _grow(parameters, bias.parameter, bias.scale * _fit(seed, values[bias.parameter].size))

    def _expr(
        self, expr: Expr, env: Mapping[str, _Number], length: int, seed: _Number | None, found: dict[str, _Number],
        parameters: dict[str, np.ndarray] | None,
    ) -> None:  # fmt: skip
        """Adds ``seed * dexpr/dleaf`` for all leaves; without a seed it is 1."""
        for name in sorted(names(expr)):
            if name not in env and (parameters is None or name not in self.graph.learned):
                continue
            slope = self.value(self.slopes(expr, name), env, length)
            slope = slope if seed is None else slope * seed
            if name in env:
                vector = env[name].value if isinstance(env[name], _Dual) else env[name]
                one = vector.shape[1] == 1
                part = _linear(lambda v: v.sum(axis=1, keepdims=True), slope) if one else slope
                found[name] = found[name] + part if name in found else part
            else:
                _grow(parameters, name, _fit(slope, self.flat[name].size))


def _grow(parameters: dict[str, np.ndarray] | None, name: str, part: np.ndarray) -> None:
    if parameters is not None:
        parameters[name] = parameters.get(name, 0.0) + part


def _fit(slope: np.ndarray, size: int) -> np.ndarray:
    """(batch, length) summed to (size,)."""
    return slope.sum(axis=0) if size == slope.shape[1] else slope.sum().reshape(1)


def _full(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(x, shape).copy()


def _apply(matrix: Matrix, values: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """matrix @ x, (batch, rows) from (batch, columns)."""
    if isinstance(matrix, Dense):
        return x @ dense(matrix, values).T
    if isinstance(matrix, Convolution):
        return convolve.apply(matrix, values[matrix.parameter], x)
    of = np.asarray(matrix.of)
    return np.where(of >= 0, x[:, np.maximum(of, 0)], 0.0)


def _transpose(matrix: Matrix, values: Mapping[str, np.ndarray], y: np.ndarray, columns: int) -> np.ndarray:
    """matrix' @ y, (batch, columns) from (batch, rows)."""
    if isinstance(matrix, Dense):
        return y @ dense(matrix, values)
    if isinstance(matrix, Convolution):
        return convolve.transpose(matrix, values[matrix.parameter], y)
    found, of = np.zeros((len(y), columns)), np.asarray(matrix.of)
    np.add.at(found.T, of[of >= 0], y.T[of >= 0])
    return found


def _outer(matrix: Matrix, values: Mapping[str, np.ndarray], y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The derivative of ``sum(y * (matrix @ x))`` by the parameter, in its shape."""
    if isinstance(matrix, Convolution):
        return convolve.outer(matrix, values[matrix.parameter], x, y)
    assert isinstance(matrix, Dense)
    found = np.zeros_like(values[matrix.parameter])
    added(found, matrix, y.T @ x)
    return found


def split(graph: Graph, flat: np.ndarray) -> dict[str, np.ndarray]:
    """States by name, (batch, units), from all of them one after the other."""
    parts = np.split(flat, np.cumsum(list(graph.states.values()))[:-1], axis=1)
    return dict(zip(graph.states, parts, strict=True))


def nodes(graph: Graph, q: States, u: np.ndarray) -> dict[str, np.ndarray]:
    """All nodes, each (batch, length) or (batch, 1)."""
    env = _Walk(graph, graph.nodes, ()).forward({**q, "u": u})
    return {name: env[name] for name in graph.nodes}


def energy(graph: Graph, q: States, u: np.ndarray) -> np.ndarray:
    """V of every sample, shape (batch,)."""
    walk = _Walk(graph, graph.nodes, graph.energy)
    return walk.total(walk.forward({**q, "u": u}))


def gradient(graph: Graph, q: States, u: np.ndarray) -> dict[str, np.ndarray]:
    """dV/dparameter summed over the batch, by name, for every parameter that learns and occurs in the energy."""
    walk, found = _Walk(graph, graph.nodes, graph.energy), {}
    walk.backward(walk.forward({**q, "u": u}), found)
    return _shaped(graph, found)


def _shaped(graph: Graph, flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.reshape(graph.values[name].shape) for name, value in flat.items()}


def _momenta(graph: Graph, p: States) -> list[tuple[_Walk, dict[str, np.ndarray], str]]:
    return [
        (_Walk(graph, {}, (Sum(graph.kinetic[name], units),)), {"p": p[name]}, name)
        for name, units in graph.states.items()
    ]


def kinetic(graph: Graph, p: States) -> np.ndarray:
    """The kinetic energy of every sample, shape (batch,)."""
    return np.sum([walk.total(env) for walk, env, _ in _momenta(graph, p)], axis=0)


def kinetic_gradient(graph: Graph, p: States) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(velocity by state, derivative by learned parameter summed over the batch)."""
    velocity, found = {}, {}
    for walk, env, name in _momenta(graph, p):
        velocity[name] = _full(walk.backward(env, found)["p"], p[name].shape)
    return velocity, _shaped(graph, found)


def readout(graph: Graph, q: States) -> np.ndarray:
    """y of shape (batch, outputs); the states, one after the other, when the graph has no readout."""
    if graph.readout is None:
        return np.concatenate([q[name] for name in graph.states], axis=1)
    walk, env = _before_readout(graph, q)
    return walk.affine(graph.readout, env)


def _before_readout(graph: Graph, q: States) -> tuple[_Walk, dict[str, np.ndarray]]:
    """The nodes that the readout needs: none of them depends on u."""
    assert graph.readout is not None
    used = set().union(*(names(t.source) for t in graph.readout.terms))
    for name, node in reversed(list(graph.nodes.items())):
        if name in used:
            sources = [t.source for t in node.terms] if isinstance(node, Affine) else [node.expr]
            used |= set().union(*map(names, sources))
    walk = _Walk(graph, {name: node for name, node in graph.nodes.items() if name in used}, ())
    return walk, walk.forward(q)


def _cost_walk(graph: Graph, y: np.ndarray, target: np.ndarray) -> tuple[_Walk, dict[str, np.ndarray]]:
    if graph.classes:
        target = np.eye(graph.outputs)[np.asarray(target, np.int64).reshape(-1)]
    walk = _Walk(graph, graph.cost_nodes, graph.cost)
    return walk, walk.forward({"y": y, "target": target})


def cost(graph: Graph, q: States, target: np.ndarray) -> np.ndarray:
    """The cost of every sample, shape (batch,); the graph must have one. Class numbers are (batch,)."""
    walk, env = _cost_walk(graph, readout(graph, q), target)
    return walk.total(env)


def cost_gradient(
    graph: Graph, q: States, target: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(dcost/dq by state, dcost/dparameter summed over the batch by name)."""
    assert graph.readout is not None
    walk, env = _cost_walk(graph, readout(graph, q), target)
    slope = _full(walk.backward(env).get("y", 0.0), env["y"].shape)
    walk, env = _before_readout(graph, q)
    found: dict[str, np.ndarray] = {}
    start: dict[str, np.ndarray] = {}
    walk.transposed(graph.readout, env, slope, start, found)
    slopes = walk.backward(env, found, start)
    return {name: _full(slopes.get(name, 0.0), q[name].shape) for name in graph.states}, _shaped(graph, found)
