"""Ranges from data: the float64 trajectory of the passes over the calibration batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.differentiate import evaluate
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Affine, Dense, Graph
from echolith.compiler.isa import Opcode
from echolith.compiler.kinetic import velocity
from echolith.compiler.select import Pass
from echolith.compiler.steps import DELTA, ONE, Drive, Flow, dense

__all__ = ["ERRORS", "Samples", "affine", "calibrate", "force", "forward"]

ERRORS = 0.5  # range of made-up cost derivatives, in row operands that are full at 16
_DIVERGED = 1e6
_CALM = 100.0  # below this, states that are not finite have not grown there
_KEEP = 4096  # rows of samples kept per quantity

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Calibrated values: of every vector and sum by name (samples, size), p's largest magnitude, outputs, the data."""

    values: Values
    p: float
    y: np.ndarray
    inputs: np.ndarray  # (batch, steps, inputs)
    targets: np.ndarray  # (batch, read-outs, outputs)
    missing: np.ndarray | None = None  # of the same shape: which targets are not there; None without masks


def affine(form: Affine | Drive, values: Mapping[str, np.ndarray], vectors: Mapping[str, np.ndarray], samples: int
           ) -> np.ndarray:
    """(samples, length) of terms and biases."""
    total = np.zeros((samples, form.length))
    for term in form.terms:
        assert isinstance(term.matrix, Dense)
        total = total + term.scale * (evaluate(term.source, dict(vectors)) @ dense(term.matrix, values).T)
    for bias in form.biases:
        total = total + bias.scale * np.asarray(values[bias.parameter]).reshape(-1)
    return total


def force(passes: Sequence[Pass], flow: Flow | Design, vectors: Values, values: Mapping[str, np.ndarray]
          ) -> tuple[Values, Values]:
    """All vectors and sums, and the kicks by state, at ``vectors`` (states and u, each (samples, size)).

    ``flow`` has the matrices and drives, ``values`` the parameters."""
    env: Values = {**{name: np.asarray(v).reshape(-1) for name, v in values.items()}, **vectors}
    kicks: Values = {}
    samples = len(vectors["u"])
    env[ONE] = np.ones((samples, 1))
    for made in passes:
        env |= {g.name: g(env[g.x]) for g in made.gathers}
        if made.parts:
            env[made.q] = np.concatenate([env[n] for n in made.parts], axis=1)
        if made.opcode == Opcode.OUTER:
            continue
        if made.acc:
            env[made.acc] = _sum(made, flow, env, values, samples)
        if made.expr is None or not (made.result or made.state):
            continue
        value = np.broadcast_to(evaluate(made.expr, env), (samples, made.length))
        if made.maximum:
            value = value.max(axis=1, keepdims=True)
        if made.state:
            kicks[made.state] = kicks.get(made.state, 0.0) + value
        else:
            env[made.result] = value
    return env, kicks


def _sum(made: Pass, flow: Flow | Design, env: Values, values: Mapping[str, np.ndarray], samples: int) -> np.ndarray:
    if made.matrix in flow.drives:
        return affine(flow.drives[made.matrix], values, {"u": env["u"]}, samples)
    matrix = dense(flow.matrices[made.matrix], values)
    x = env[made.x].reshape(samples * made.positions, -1)
    total = (x @ (matrix if made.opcode == Opcode.TRANSPOSED else matrix.T)).reshape(samples, -1)
    if made.drive:
        total = total + affine(flow.drives[made.drive], values, {"u": env["u"]}, samples)
    return total


def forward(graph: Graph, passes: Sequence[Pass], flow: Flow, x: np.ndarray, dt: float, substeps: int,
            feed: Sequence[Pass] = ()) -> Iterator[tuple[int, bool, Values, Values, Values]]:
    """Of every step from rest: its row and whether it is the row's last, positions, all vectors and sums, and the
    momenta behind it. ``x`` is (batch, steps, inputs), ``feed`` are the passes that make what layers are fed."""
    q = {s: np.zeros((len(x), n)) for s, n in graph.states.items()}
    p = {s: np.zeros((len(x), n)) for s, n in graph.states.items()}
    largest = 0.0
    for row in range(x.shape[1]):
        for substep in range(substeps):
            moved = velocity(graph.kinetic, flow.values, p)
            q = {s: v + dt * moved[s] for s, v in q.items()}
            given = {**q, "u": x[:, row]}
            if feed:
                given |= {n: v for n, v in force(feed, flow, given, flow.values)[0].items() if n not in flow.values}
            env, kicks = force(passes, flow, given, flow.values)
            p = {s: v - kicks.get(s, 0.0) for s, v in p.items()}
            largest = max(largest, *(float(np.abs(v).max(initial=0.0)) for v in p.values()))
            finite = all(np.isfinite(v).all() for v in (*q.values(), *p.values()))
            if not finite and largest < _CALM:
                raise CompileError(
                    f"energy: its derivative must be finite where the states go, but at input row {row} of the "
                    "calibration data it is not; keep what is under log, sqrt and powers positive, not nan")
            if not (finite and largest < _DIVERGED):
                raise CompileError(
                    f"energy: the dynamics diverge on the calibration data at input row {row}; make dt smaller "
                    f"(leapfrog needs dt^2 * lambda_max < 4) or scale the weights, not dt={dt:g}")
            yield row, substep == substeps - 1, q, env, p


def calibrate(graph: Graph, passes: Sequence[Pass], flow: Flow, x: np.ndarray, targets: np.ndarray, dt: float,
              substeps: int, cost_at: str | None, read: Sequence[Pass] = (), feed: Sequence[Pass] = (),
              late: Mapping[str, list[np.ndarray]] = MappingProxyType({})) -> Samples:
    """Run forward in float64 from rest; ``read`` are the passes of a read-out, ``late`` is what is known of every step
    already, the others as in `forward`."""
    generator = np.random.default_rng(0)
    seen: dict[str, list[np.ndarray]] = {}
    ys: list[np.ndarray] = []
    largest = 0.0
    for row, ends, q, env, p in forward(graph, passes, flow, x, dt, substeps, feed):
        if read:
            delta = {DELTA: generator.uniform(-ERRORS, ERRORS, (len(x), graph.outputs))}
            env |= force(read, flow, {**q, "u": x[:, row], **delta}, flow.values)[0]
        for name, value in env.items():
            if name not in flow.values:
                seen.setdefault(name, []).append(value)
        if flow.readout and ends and (cost_at == "every" or row == x.shape[1] - 1):
            ys.append(affine(flow.readout, flow.values, env, len(x)))
        largest = max(largest, *(float(np.abs(v).max(initial=0.0)) for v in p.values()))
    return Samples(_thin({**seen, **late}), largest, _thin({"y": ys})["y"] if ys else np.zeros((1, 1)), x, targets)


def _thin(values: dict[str, list[np.ndarray]]) -> Values:
    """The same samples of every quantity, among them the one with the largest magnitude of every column."""
    whole = {name: np.concatenate(rows) for name, rows in values.items()}
    count = max(map(len, whole.values()))
    if count <= _KEEP:
        return whole
    largest = [np.abs(rows).argmax(0)[:_KEEP] for rows in whole.values()]
    keep = np.unique(np.concatenate([np.linspace(0, count - 1, _KEEP).astype(int), *largest]))
    return {name: rows[keep] for name, rows in whole.items()}
