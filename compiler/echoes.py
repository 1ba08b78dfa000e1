"""Ranges of what only echoes of a stack make: errors between layers, nudges of the layers below, in float64."""

from collections.abc import Sequence

import numpy as np

from echolith.compiler.calibrate import Values, affine, force
from echolith.compiler.costs import Cost, slope
from echolith.compiler.differentiate import evaluate
from echolith.compiler.graph import Dense, Graph
from echolith.compiler.joins import Joins
from echolith.compiler.kinetic import velocity
from echolith.compiler.linearity import linear
from echolith.compiler.reads import NUDGES
from echolith.compiler.select import Pass
from echolith.compiler.steps import Flow, dense, error

__all__ = ["echoes", "responses"]

_NUDGE = 1e-5
_TWICE = 1  # bits
_APART = 0.125  # of a state unit: how far echoes part in the layer where they part most

States = dict[str, np.ndarray]


class _Echo:
    def __init__(self, graph: Graph, passes: Sequence[Pass], flow: Flow, joins: Joins, cost: Cost, dt: float):
        self.graph, self.passes, self.flow, self.joins, self.cost, self.dt = graph, passes, flow, joins, cost, dt
        self.seen: dict[str, list[np.ndarray]] = {}
        self.apart = dict.fromkeys(graph.states, 0.0)
        self.largest = 0.0  # position or momentum on the way forward

    def forces(self, q: States, fed: Values, u: np.ndarray) -> tuple[Values, Values]:
        return force(self.passes, self.flow, {**q, **fed, "u": u}, self.flow.values)

    def fed(self, q: States, u: np.ndarray) -> Values:
        env, _ = force(self.joins.forward, self.flow, {**q, "u": u}, self.flow.values)
        return {name: env[name] for name in self.graph.fed}

    def drift(self, q: States, p: States, sign: float) -> States:
        moved = velocity(self.graph.kinetic, self.flow.values, p)
        return {s: v + sign * self.dt * moved[s] for s, v in q.items()}

    def cost_slope(self, q: States, target: np.ndarray) -> States:
        """dcost/dq."""
        form = self.flow.readout
        assert form is not None
        y = affine(form, self.flow.values, q, len(target))
        change = np.broadcast_to(evaluate(slope(self.cost), self.cost.given(y, np.nan_to_num(target))), y.shape)
        found = {s: np.zeros(v.shape) for s, v in q.items()}
        for term in form.terms:
            assert isinstance(term.matrix, Dense)
            weights = term.scale * dense(term.matrix, self.flow.values)
            found[term.source.name] = found[term.source.name] + change @ weights
        return found

    def backward(self, copies: list[tuple[States, States]], u: np.ndarray, nudge: States | None) -> None:
        """One step of the copies 0, + and - undone, in place; all at the positions of the step."""
        fed = self.fed(copies[0][0], u)
        found = [self.forces(q, fed, u) for q, _ in copies]
        contrast = [made for made in self.passes if made.contrast]
        given = {made.result: found[1][0][made.result] - found[2][0][made.result] for made in contrast}
        errors = {error(n): given.get(error(n), np.zeros_like(fed[n])) for n in self.graph.fed}
        env, _ = force(self.joins.passes, self.flow, {**copies[0][0], **errors, "u": u}, self.flow.values)
        self.note({**{n: v for n, v in env.items() if n not in self.flow.values}, **given})
        for (q, p), (_, kicks), sign in zip(copies, found, (0.0, 1.0, -1.0), strict=True):
            for state in p:
                p[state] = p[state] + kicks.get(state, 0.0) - sign * self.nudge(state, env, nudge)
            q.update(self.drift(q, p, -1.0))
        self.respond(copies)

    @staticmethod
    def nudge(state: str, env: Values, nudge: States | None) -> np.ndarray | float:
        """Of a read-out and from above."""
        own = nudge[state] if nudge else 0.0
        return own - 0.5 * env.get(f"{NUDGES}:{state}", 0.0)

    def respond(self, copies: list[tuple[States, States]]) -> None:
        for s in self.apart:
            self.apart[s] = max(self.apart[s], float(np.abs(copies[1][0][s] - copies[2][0][s]).max(initial=0.0)))

    def note(self, values: Values) -> None:
        for name, value in values.items():
            self.seen.setdefault(name, []).append(value)

    def run(self, x: np.ndarray, targets: np.ndarray, substeps: int, cost_at: str, strength: float) -> None:
        """There and back with nudges of this strength."""
        q = {s: np.zeros((len(x), n)) for s, n in self.graph.states.items()}
        p = {s: v.copy() for s, v in q.items()}
        rows = x.shape[1]
        for step in range(rows * substeps):
            q, u = self.drift(q, p, 1.0), x[:, step // substeps]
            if step < rows * substeps - 1:
                kicks = self.forces(q, self.fed(q, u), u)[1]
                p = {s: v - kicks.get(s, 0.0) for s, v in p.items()}
            self.largest = max(self.largest, *(float(np.abs(v).max(initial=0.0)) for v in (*q.values(), *p.values())))
        copies = [(dict(q), dict(p)) for _ in range(3)]
        nudge = {s: strength * v for s, v in self.cost_slope(q, targets[:, -1]).items()}
        for (q, p), sign in zip(copies, (0.0, 1.0, -1.0), strict=True):
            p.update({s: v - sign * nudge[s] for s, v in p.items()})
            q.update(self.drift(q, p, -1.0))
        self.respond(copies)
        for step in range(rows * substeps - 1, 0, -1):
            row, now = (step - 1) // substeps, None
            if cost_at == "every" and step % substeps == 0:
                now = {s: strength * v for s, v in self.cost_slope(copies[0][0], targets[:, row]).items()}
            self.backward(copies, x[:, row], now)


def responses(graph: Graph, passes: Sequence[Pass], flow: Flow, joins: Joins, cost: Cost, x: np.ndarray,
              targets: np.ndarray, dt: float, substeps: int, cost_at: str) -> tuple[dict[str, int], dict[str, int]]:
    """By layer: bits by which its nudges must be stronger than those of the last one, which is read, so that its echoes
    part as far as they should; and bits by which those of linear layers part further than others."""
    weak = _Echo(graph, passes, flow, joins, cost, dt)
    weak.run(x, targets, substeps, cost_at, _NUDGE)
    top, further = list(graph.states)[-1], _further(graph, weak.largest)
    found = {s: int(np.rint(np.log2(weak.apart[top] / v))) + further[s] - further[top] if v and s != top else 0
             for s, v in weak.apart.items()}
    return _alike(found, top), further


def _alike(exponents: dict[str, int], top: str) -> dict[str, int]:
    """One bit apart is no reason for another circuit."""
    below = sorted({n for s, n in exponents.items() if s != top})
    return {s: n - 1 if s != top and n - 1 in below and (n - 2 not in below) else n for s, n in exponents.items()}


def _further(graph: Graph, largest: float) -> dict[str, int]:
    """Rounded at every step of every layer, echoes of a stack part twice as far as others; echoes of any size are exact
    where motion is linear: there they may part by a quarter of what states reach."""
    alone, most = linear(graph), int(np.ceil(np.log2(max(largest, 1e-30))))
    return {s: max(_TWICE, most + 1) if s in alone else _TWICE for s in graph.states}


def echoes(graph: Graph, passes: Sequence[Pass], flow: Flow, joins: Joins, cost: Cost, x: np.ndarray,
           targets: np.ndarray, dt: float, substeps: int, cost_at: str, further: dict[str, int]
           ) -> dict[str, list[np.ndarray]]:
    """Vectors and sums of errors and of what follows from them at every step, 0 at the last one, with echoes that part
    by an eighth of a unit in the layer where they part most, or by bits ``further``."""
    weak, strong = (_Echo(graph, passes, flow, joins, cost, dt) for _ in range(2))
    weak.run(x, targets, substeps, cost_at, _NUDGE)
    most = max(weak.apart[s] / 2.0**n for s, n in further.items())
    strong.run(x, targets, substeps, cost_at, _NUDGE * _APART / max(most, 1e-12))
    return {name: [*reversed(found), np.zeros_like(found[0])] for name, found in strong.seen.items()}
