"""The verifier between selection and circuits: the passes in float64 against the captured graph's own derivatives.

Capture has compared the graph with autograd; this compares what the chip will do with the graph, on calibrated states:
every force, and every update of a learned parameter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from echolith.compiler import numeric
from echolith.compiler.calibrate import Samples, force
from echolith.compiler.design import Design
from echolith.compiler.differentiate import evaluate
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Dense, Graph
from echolith.compiler.isa import Opcode
from echolith.compiler.joins import Joins
from echolith.compiler.select import Pass
from echolith.compiler.steps import DELTA, ERROR, OUTPUT, SLOPE, Flow, added, error

__all__ = ["agree", "agree_joins", "agree_reading", "updates"]

_SAMPLES = 8
_TOLERANCE = 1e-9  # of the largest element


def agree(graph: Graph, flow: Flow, passes: Sequence[Pass], samples: Samples, dt: float, learn: bool) -> None:
    """Raises CompileError where passes and graph differ."""
    rows = np.linspace(0, len(samples.values["u"]) - 1, _SAMPLES).astype(int)
    graph = replace(graph, states=graph.states | graph.fed)  # what layers are fed is read like a state
    q, u = {s: samples.values[s][rows] for s in graph.states}, samples.values["u"][rows]
    env, kicks = force(passes, flow, {**q, "u": u}, flow.values)
    kicks |= {name: env[error(name)] for name in graph.fed if error(name) in env}
    for state, expected in numeric.Force(graph)(q, u).items():
        if state in graph.fed and not learn:
            continue
        _same(f"force on {state}", np.broadcast_to(kicks.get(state, 0.0), expected.shape), dt * expected)
    if not learn:
        return
    found = updates(flow, passes, env, dt)
    for name, expected in numeric.gradient(graph, q, u).items():
        if name in graph.learned:
            _same(f"update of {name}", found.get(name, np.zeros(expected.shape)), dt * expected)


def agree_reading(graph: Graph, flow: Flow, passes: Sequence[Pass], samples: Samples, dt: float, learn: bool) -> None:
    """The same of a read-out's passes; see `reads`."""
    rows = np.linspace(0, len(samples.values["u"]) - 1, _SAMPLES).astype(int)
    given = {n: v[rows] for n, v in samples.values.items() if n in (*graph.states, "u", DELTA)}
    given.setdefault(DELTA, np.zeros((len(rows), graph.states[ERROR])))
    env, _ = force(passes, flow, given, flow.values)
    q, u = {**given, ERROR: -2 * given[DELTA]}, given["u"]
    expected = numeric.Force(graph)({s: q[s] for s in graph.states}, u)
    _same("read-out", env[OUTPUT], expected[ERROR])
    if not learn:
        return
    for state in graph.states.keys() - {ERROR}:
        _same(f"nudge of {state}", env.get(f"{SLOPE}{state}", np.zeros_like(expected[state])), expected[state])
    found = updates(flow, passes, env, dt)
    for name, gradient in numeric.gradient(graph, {s: q[s] for s in graph.states}, u).items():
        if name in graph.learned:
            _same(f"update of {name}", found.get(name, np.zeros(gradient.shape)), gradient)


def agree_joins(joins: Joins, flow: Flow, samples: Samples, dt: float, learn: bool) -> None:
    """The same of what lies between the layers of a stack."""
    rows = np.linspace(0, len(samples.values["u"]) - 1, _SAMPLES).astype(int)
    graph = replace(joins.graph, fed={})
    errors, generator = set(map(error, joins.graph.fed)), np.random.default_rng(0)
    given = {s: generator.uniform(-1, 1, (len(rows), n)) if s in errors else samples.values[s][rows]
             for s, n in graph.states.items()}
    u = samples.values["u"][rows]
    env, _ = force(joins.passes, flow, {**given, "u": u}, flow.values)
    expected = numeric.Force(graph)(given, u)
    for name in joins.graph.fed:
        _same(f"value of {name}", env[name], expected[error(name)])
    if not learn:
        return
    for state in graph.states.keys() - errors:
        _same(f"nudge of {state}", env.get(f"{SLOPE}{state}", np.zeros_like(expected[state])), expected[state])
    found = updates(flow, joins.passes, env, dt)
    for name, gradient in numeric.gradient(graph, given, u).items():
        if name in graph.learned:
            _same(f"update of {name}", found.get(name, np.zeros(gradient.shape)), gradient)


def updates(flow: Flow | Design, passes: Sequence[Pass], env: Mapping[str, np.ndarray], dt: float
            ) -> dict[str, np.ndarray]:
    """dt * dV/dparameter summed over the samples, from the vectors that `force` returned."""
    found = {name: np.zeros(np.shape(value)) for name, value in flow.values.items()}
    for made in passes:
        if made.opcode == Opcode.OUTER and made.matrix in flow.drives:
            _drive(flow, made, env, found)
        elif made.opcode == Opcode.OUTER:
            t, x = (env[n].reshape(len(env[n]) * made.positions, -1) for n in (made.t, made.x))
            matrix = flow.matrices[made.matrix]
            added(found[matrix.parameter], matrix, t.T @ x)
        for name, expr in made.learn:
            g = dt * np.broadcast_to(evaluate(expr, env), (len(env["u"]), made.length))
            found[name] += (g.sum(0) if np.size(found[name]) == made.length else g.sum()).reshape(found[name].shape)
    return found


def _drive(flow: Flow | Design, made: Pass, env: Mapping[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    t, drive = env[made.t], flow.drives[made.matrix]
    for term in drive.terms:
        assert isinstance(term.matrix, Dense)
        added(found[term.matrix.parameter], term.matrix, term.scale * (t.T @ env["u"]))
    for bias in drive.biases:
        found[bias.parameter] += bias.scale * t.sum(0).reshape(found[bias.parameter].shape)


def _same(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-4)
    error = float(np.abs(found - expected).max(initial=0.0)) / scale
    if not error <= _TOLERANCE:
        raise CompileError(f"energy: the {what} on the chip must equal the derivative of the energy within "
                           f"{_TOLERANCE:g}; this is a defect of the compiler, not a relative error of {error:.3g}")
