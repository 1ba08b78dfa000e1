"""The float64 gradient of a `Design` by the adjoint method, from its passes alone: numpy only, no model, no torch.

Forward, every state is kept; backward, with F(q) = dt dV/dq and A(q) = dt dV/dparameter,

    l_q += dcost/dq at a read-out;  gradient -= dA/dq l_p;  l_q -= dF/dq l_p
    gradient += dt dT'/dparameter l_q;  l_p += dt T'' l_q                        T'(p) the velocity

The derivatives of F and A along l_p are central differences of the passes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from echolith.compiler.agree import updates
from echolith.compiler.calibrate import force
from echolith.compiler.costs import Cost, slope
from echolith.compiler.derived import chained, completed
from echolith.compiler.design import Design
from echolith.compiler.differentiate import derivative, evaluate, names
from echolith.compiler.kinetic import velocity
from echolith.compiler.steps import DELTA, OUTPUT, SLOPE, part

__all__ = ["Run", "cost_slope", "forward", "gradient", "kicks", "outputs", "read", "reading", "readout", "slopes",
           "speed"]

_STEP = 1e-5  # of the largest element that is moved

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """Positions and momenta, (steps, samples, units), after every drift and every kick."""

    q: np.ndarray
    p: np.ndarray


def _split(design: Design, q: np.ndarray) -> dict[str, np.ndarray]:
    edges = np.cumsum(list(design.states.values()))[:-1]
    return dict(zip(design.states, np.split(q, edges, axis=1), strict=True))


def kicks(design: Design, values: Values, q: np.ndarray, u: np.ndarray, fed: Values | None = None
          ) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All vectors and sums by name, and dt * dV/dq of all states, one after the other; with what layers of a stack are
    ``fed``, if not told what these states feed them."""
    states = _split(design, q)
    passes, given = (design.forces, {}) if fed is None else (design.passes, fed)
    env, found = force(passes, design, {**states, "u": u, **given}, values)
    return env, np.concatenate([np.broadcast_to(found.get(s, 0.0), v.shape) for s, v in states.items()], axis=1)


def forward(design: Design, values: Values, x: np.ndarray, start: np.ndarray | None = None) -> Run:
    """From rest, or from ``start`` (samples, units), through (samples, rows, inputs)."""
    d = design.dynamics
    q = np.zeros((len(x), design.units)) if start is None else start
    p, qs, ps = np.zeros((len(x), design.units)), [], []
    for row in range(x.shape[1]):
        for _ in range(d.substeps):
            q = q + d.dt * speed(design, values, p)
            p = p - kicks(design, values, q, x[:, row])[1]
            qs.append(q)
            ps.append(p)
    return Run(np.stack(qs), np.stack(ps))


def speed(design: Design, values: Values, p: np.ndarray) -> np.ndarray:
    """dT/dp of all states, one after the other."""
    return np.concatenate(list(velocity(design.kinetic, values, _split(design, p)).values()), axis=1)


def readout(design: Design, values: Values) -> np.ndarray:
    """[R, b] of the outputs R q + b, (outputs, units + 1)."""
    found = np.zeros((design.outputs, design.units + 1))
    for placement in design.placements:
        if placement.block == "readout":
            place = found[:, placement.column:placement.column + placement.columns]
            for name, transposed, window in zip(placement.parameters, placement.transposed, placement.windows,
                                                strict=True):
                value = part(np.asarray(values[name], np.float64), window)
                place += placement.scale * (value.T if transposed else value).reshape(place.shape)
    return found


def read(design: Design, values: Values, q: np.ndarray) -> np.ndarray:
    """Outputs (samples, outputs) of states (samples, units)."""
    if design.reading:
        return reading(design, values, q)[OUTPUT]
    weights = readout(design, values)
    return q @ weights[:, :-1].T + weights[:, -1]


def reading(design: Design, values: Values, q: np.ndarray, change: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Vectors of a read-out that has passes of its own, with dcost/dy those behind the cost too."""
    given = {**_split(design, q), "u": np.zeros((len(q), design.inputs))}
    if change is None:
        return force(design.reading[:len(design.reads)], design, given, values)[0]
    return force(design.reading, design, {**given, DELTA: change}, values)[0]


def outputs(design: Design, values: Values, x: np.ndarray) -> np.ndarray:
    """As `Session.predict`."""
    d, q = design.dynamics, forward(design, values, x).q[design.dynamics.substeps - 1::design.dynamics.substeps]
    if design.hardware.cost is not None:
        q = read(design, values, q.reshape(-1, design.units)).reshape(*q.shape[:2], -1)
    return q.swapaxes(0, 1) if d.cost_at == "every" else q[-1]


def gradient(design: Design, values: Values, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Mean over the samples of the gradient of the cost for every learned parameter, as `Session.gradient`.

    ``x`` is (samples, rows, inputs), ``y`` (samples, read-outs, outputs)."""
    values = completed(design.derived, values)
    d, run = design.dynamics, forward(design, values, x)
    held = {*design.learned, *(made.name for made in design.derived)}
    total = {name: np.zeros(np.shape(v)) for name, v in design.values.items() if name in held}
    at_q, at_p = np.zeros((len(x), design.units)), np.zeros((len(x), design.units))
    last = len(run.q) - 1
    for step in range(last, -1, -1):
        row = step // d.substeps
        if step == last or (step % d.substeps == d.substeps - 1 and d.cost_at == "every"):
            at_q = at_q + _cost(design, values, run.q[step], y[:, row if d.cost_at == "every" else 0], total)
        if at_p.any():
            at_q = at_q - _along(design, values, run.q[step], x[:, row], at_p, total)
        before = run.p[step - 1] if step else np.zeros_like(at_p)
        at_p = at_p + _drifted(design, values, before, at_q, total)
    means = {name: g / len(x) for name, g in total.items()}
    return chained(design.derived, means, values, frozenset(design.learned))


def _drifted(design: Design, values: Values, p: np.ndarray, at_q: np.ndarray, total: dict[str, np.ndarray]
             ) -> np.ndarray:
    """dt * T'' at_q; adds the gradient of masses."""
    flat = {name: np.asarray(v).reshape(-1) for name, v in values.items()}
    found = []
    for (state, momenta), push in zip(_split(design, p).items(), _split(design, at_q).values(), strict=True):
        change, env = derivative(design.kinetic[state], "p"), {**flat, "p": momenta}
        for name in names(change) & total.keys():
            grown = design.dynamics.dt * np.broadcast_to(evaluate(derivative(change, name), env), push.shape) * push
            whole = total[name].size == push.shape[1]
            total[name] += (grown.sum(0) if whole else grown.sum()).reshape(total[name].shape)
        found.append(design.dynamics.dt * np.broadcast_to(evaluate(derivative(change, "p"), env), push.shape) * push)
    return np.concatenate(found, axis=1)


def _cost(design: Design, values: Values, q: np.ndarray, target: np.ndarray, total: dict[str, np.ndarray]
          ) -> np.ndarray:
    """dcost/dq; adds the gradient of the readout."""
    assert design.cost is not None
    change = design.dynamics.cost_scale * cost_slope(design.cost, read(design, values, q), target)
    if design.reading:
        env = reading(design, values, q, change)
        for name, grown in updates(design, design.reading, env, design.dynamics.dt).items():
            if name in total:
                total[name] -= grown / 2
        return slopes(design, env, q) / -2
    columns = np.concatenate([q, np.ones((len(q), 1))], axis=1)
    weights = readout(design, values)
    own = change.T @ columns
    for p in design.placements:
        if p.block == "readout":
            found = p.scale * own[:, p.column:p.column + p.columns]
            for name, transposed, window, learned in zip(p.parameters, p.transposed, p.windows, p.learned, strict=True):
                if learned:
                    place = part(total[name], window)
                    place += (found.T if transposed else found).reshape(place.shape)
    return change @ weights[:, :-1]


def slopes(design: Design, env: Mapping[str, np.ndarray], q: np.ndarray) -> np.ndarray:
    """What the passes behind a cost leave for all states, one after the other."""
    found = [env.get(f"{SLOPE}{s}", np.zeros((len(q), n))) for s, n in design.states.items()]
    return np.concatenate(found, axis=1)


def cost_slope(cost: Cost, y: np.ndarray, target: np.ndarray) -> np.ndarray:
    """dcost/dy of all outputs, on the last axis; 0 where the target is NaN: not there."""
    found = evaluate(slope(cost), cost.given(y, np.nan_to_num(target)))
    return np.where(np.isnan(target), 0.0, found)


def _along(design: Design, values: Values, q: np.ndarray, u: np.ndarray, direction: np.ndarray,
           total: dict[str, np.ndarray]) -> np.ndarray:
    """dF/dq times ``direction``; takes dA/dq times it from the gradient."""
    size = _STEP / float(np.abs(direction).max())
    found, envs, before = [], [], design.forces[:len(design.feeds)]
    fed = None
    if before:
        made, _ = force(before, design, {**_split(design, q), "u": u}, values)
        fed = {p.result: made[p.result] for p in before if p.result}
    for sign in (1.0, -1.0):
        env, kick = kicks(design, values, q + sign * size * direction, u, fed)
        envs.append(env)
        for name, grown in updates(design, design.passes, env, design.dynamics.dt).items():
            if name in total:
                total[name] -= sign / (2 * size) * grown
        found.append(kick)
    own = (found[0] - found[1]) / (2 * size)
    if fed is None:
        return own
    errors = {name: (envs[0][name] - envs[1][name]) * 2.0**n / (2 * size) for name, n in design.strengths.items()}
    env, _ = force(design.between, design, {**_split(design, q), "u": u, **errors}, values)
    for name, grown in updates(design, design.between, env, design.dynamics.dt).items():
        if name in total:
            total[name] -= grown
    return own + slopes(design, env, q)
