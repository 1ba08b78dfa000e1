"""The integer model against float64: every step, gradient and update within the bounds that the formats give.

Each step starts from the integer model's own state, so errors do not pile up and a step that exceeds its bound is the
one with the wrong format, the clipped sum or the wrapped state.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.steps import DELTA
from echolith.host.rates import rates
from echolith.sim import arith
from echolith.sim.allowance import Allowance, Drifting, nudge_bound, readout_bound
from echolith.sim.divergence import Divergence, named
from echolith.sim.real import Gradient, Real, goals
from echolith.sim.state import State
from echolith.sim.trace import Place, Traced, traced
from echolith.sim.weights import Words, gradients, to_values

__all__ = ["Rounding", "rounding"]

_SLACK = 1e-6  # float64's own rounding, in words
_RELATIVE = 1e-9  # and of gradients, relative to the largest


@dataclass
class Rounding:
    """``error`` is the largest of a step, in units in the last place of a state, ``bound`` what its formats allow
    there; ``drifted`` how far the states are apart after all steps forward; ``divergence`` the first step, read-out or
    gradient beyond its bound."""

    error: float = 0.0
    bound: float = 0.0
    drifted: float = 0.0
    divergence: Divergence | None = field(default=None)


def rounding(design: Design, words: Words, x: np.ndarray, target: np.ndarray, rate: float | None) -> Rounding:
    """Run data words forward and back with these master words; with a learning rate also learn and update once."""
    x, target = (np.repeat(part, design.rule.runs, axis=0) for part in (x, target))
    model = traced(design, words, "echo" if rate is None else "learn", x, target, design.response, design.gain)
    check = _Check(model, Real(design, words), x, target)
    check.motion(learn=rate is not None)
    if rate is not None:
        if not design.errors:
            check.gradients()
        check.update(words, rate)
    return check.found


class _Check:
    def __init__(self, model: Traced, real: Real, x: np.ndarray, target: np.ndarray):
        self.model, self.real, self.design = model, real, model.design
        self.x, self.target = x, target
        f = self.design.fractions
        self.state, self.u = 2.0 ** -f["state"], x * 2.0 ** -f["input"]
        self.goal = goals(self.design, target)
        self.steps = self.design.dynamics.steps * self.design.dynamics.substeps
        self.found = Rounding()
        self.gradient = {name: np.zeros(np.shape(v)) for name, v in self.design.values.items()}
        self.allowed: Words = {name: np.zeros(w.shape) for name, w in self._words().items()}

    def motion(self, learn: bool) -> None:
        """All steps and read-outs."""
        self.exponent = self._exponents() if learn else np.zeros(len(self.x), np.int64)
        self._readout(0)
        for place in self.model.states:
            if place[0] == "echo" and self.design.errors:  # nudges from above: `Verification.cosine` is about them
                continue
            self._step(place)
            if place[0] == "forward":
                self._readout(place[1])
        last = self._at("forward", self.steps - 1)
        self.found.drifted = float(np.abs(last.q - self.real.forward(self.u)[-1][0] / self.state).max(initial=0.0))

    def _at(self, phase: str, step: int) -> State:
        """Before the first step of a phase, where the one before has ended."""
        if phase == "forward" and step == 0:
            return self.model.start(len(self.x))
        if phase != "forward" and step > self.steps:
            s = self._at("forward", self.steps - 1)
            return State(np.tile(s.q, (2, 1)), np.tile(s.p, (2, 1))) if phase == "echo" else s
        return self.model.states[phase, step]

    def _compare(self, where: Divergence, expected: np.ndarray, got: np.ndarray, bound: np.ndarray) -> None:
        """Keep the first element beyond its bound; ``where`` has phase, word and step."""
        bound = np.broadcast_to(bound, got.shape)
        over = np.argwhere(np.abs(got - expected) > bound + _SLACK)
        if self.found.divergence is not None or not len(over):
            return
        row, unit = (int(i) for i in over[0])
        sample, minus = row % len(self.x), row >= len(self.x)
        state = ""
        if where.word in ("momentum", "position"):
            state, unit = named(self.design.states, unit)
        place = tuple(over[0])
        self.found.divergence = replace(
            where, expected=float(expected[place]), got=float(got[place]), sample=sample, state=state, unit=unit,
            copy="0" if where.phase != "echo" else "-" if minus else "+", tolerance=float(bound[place]))

    # -- read-outs -------------------------------------------------------------------------------------------------

    def _reads(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Step, position words, target words and targets of every read-out."""
        d = self.design.dynamics
        if self.model.hw.cost is None:
            return
        rows = range(d.steps) if d.cost_at == "every" else [d.steps - 1]
        for index, row in enumerate(rows):
            step = (row + 1) * d.substeps - 1
            yield step, self._at("forward", step).q, self.target[:, index], self.goal[:, index]

    def _readout(self, step: int) -> None:
        """The read-out after a step forward, if there is one."""
        f = self.design.fractions
        for q, target, goal in (found[1:] for found in self._reads() if found[0] == step):
            found, real = readout_bound(self.model, q, target), q * self.state
            y = self.real.readout(real) * 2.0 ** f["output"]
            if "delta" in found:  # outputs may clip where the cost has saturated too, as logits do in training
                limit = 2.0 ** (self.model.hw.width - 1)
                y = np.clip(y, -limit, limit - 1)
            self._compare(Divergence("readout", "output", 0, 0, step), y, *found["y"])
            if "delta" in found:
                self._compare(Divergence("readout", "cost derivative", 0, 0, step),
                              self.real.error(real, goal) * 2.0 ** f["delta"], *found["delta"])

    def _exponents(self) -> np.ndarray:
        """Of every sample's nudges."""
        leading = np.zeros(len(self.x), np.int64)
        for _, q, target, _ in self._reads():
            leading |= np.bitwise_or.reduce(arith.abs_bits(self.model.readout(q, target)[1]), axis=1)
        return self.model.exponents(leading)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _step(self, place: Place) -> None:
        phase, step = place
        back = phase != "forward"
        before, after = self._at(phase, step + 1 if back else step - 1), self.model.states[place]
        kick, bound = np.zeros(before.q.shape), np.zeros(before.q.shape)
        if step < self.steps:
            kick, bound = self._kick(phase, before.q, (step - 1) // self.design.dynamics.substeps)
        if phase == "echo":
            nudge, more = self._nudge(step)
            kick, bound = kick - nudge, bound + more
        sign = 1 if back else -1
        self._moved(Divergence(phase, "momentum", 0, 0, step), before.p + sign * kick, after.p, bound)
        scale = self.model.scales(self.exponent) if phase == "echo" else None
        allowed = Drifting(self.model, after.p, scale)
        if phase == "echo":
            self._learn(lambda copies: self.real.masses(after.p[copies] * self.state), allowed.gradients)
        drift = self.real.drift(after.p * self.state) / self.state
        self._moved(Divergence(phase, "position", 0, 0, step), before.q - sign * drift, after.q, allowed.drift)

    def _moved(self, where: Divergence, expected: np.ndarray, got: np.ndarray, bound: np.ndarray) -> None:
        bound, error = np.broadcast_to(bound, got.shape), np.abs(got - expected)
        place = np.unravel_index(error.argmax(), error.shape)
        if error[place] > self.found.error:
            self.found.error, self.found.bound = float(error[place]), float(bound[place])
        self._compare(where, expected, got, bound)

    def _kick(self, phase: str, q: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
        copies = len(q) // len(self.x)
        env, kick = self.real.force(q * self.state, np.tile(self.u[:, row], (copies, 1)))
        scale = self.model.scales(self.exponent) if phase == "echo" else None
        allowed = Allowance(self.model, q, np.tile(self.x[:, row], (copies, 1)), scale)
        if phase == "echo":
            self._learn(lambda copies: self.real.updates(env, copies), allowed.gradients)
        return kick / self.state, allowed.kick

    def _nudge(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Words of both echoes' nudges, and their bound."""
        d = self.design.dynamics
        if step < self.steps and (d.cost_at != "every" or step % d.substeps):
            return np.zeros(()), np.zeros(())
        row = (step - 1) // d.substeps if d.cost_at == "every" else 0
        q = self._at("return", step + 1).q
        nudge = self.real.nudge(q * self.state, self.goal[:, row]) * self._scale
        u = self.x[:, (step - 1) // d.substeps]
        bound, more = nudge_bound(self.model, q, u, self.target[:, row], self.exponent)
        for name, error in more.items():
            self.allowed[name] += error
        plus, minus = self.model.shares(len(nudge))
        return np.concatenate([nudge * plus, -nudge * minus]), np.concatenate([bound * plus, bound * minus])

    @property
    def _scale(self) -> np.ndarray:
        """Words of a nudge per unit of dcost/dq, by sample."""
        f, hw = self.design.fractions, self.model.hw
        nudge = f["state"] - f[DELTA] if DELTA in f else f["readout"] - hw.nudge_shift
        return 2.0 ** (self.exponent[:, None] + f["delta"] - hw.delta_shift + nudge)

    # -- gradients -------------------------------------------------------------------------------------------------

    def _learn(self, updates: Callable[[np.ndarray], Gradient], allowed: Words) -> None:
        """Add the contrast of what ``updates`` sums over samples to the gradient, and its bound."""
        sides = 1 if self.design.rule.counted else 2
        for exponent in np.unique(self.exponent):
            chosen = np.flatnonzero(self.exponent == exponent)
            eps = float(self._scale[chosen[0], 0]) * self.state
            for sign, copies in ((1, chosen), (-1, chosen + len(self.x))):
                for name, g in updates(copies).items():
                    self.gradient[name] += -sign * self.design.dynamics.cost_scale / (sides * eps) * g
        for name, bound in allowed.items():
            self.allowed[name] += bound

    def _own(self) -> None:
        """The readout's own gradient."""
        hw, one = self.model.hw, 1 << self.design.fractions["state"]
        for _, q, target, goal in self._reads():
            for name, g in self.real.own(q * self.state, goal).items():
                self.gradient[name] += g
            if self.design.backs:
                continue
            delta = readout_bound(self.model, q, target)["delta"]
            error = np.broadcast_to(delta[1] * 2.0 ** (self.model.gain - hw.readout_shift) + 0.5, delta[0].shape)
            x = np.concatenate([np.abs(q), np.full((len(q), 1), one)], axis=1)
            self.allowed["readout"] += error.T @ x[:, :self.allowed["readout"].shape[1]]

    def gradients(self) -> None:
        """Of every learned parameter, summed over the samples."""
        self._own()
        fine = 2.0**-self.model.gain
        bound = gradients(self.design, self.allowed, 1)
        for name, got in gradients(self.design, self._words(), 1).items():
            self._parameter("gradient", name, self.gradient[name], got * fine, np.abs(bound[name]) * fine)

    def update(self, words: Words, rate: float) -> None:
        """parameter -= rate * mean gradient, but for the rate's mantissa and one rounding."""
        g, samples = self._words(), len(self.x)
        used = rates(self.design, rate, 0.0, samples, self.model.gain, 0)
        bound = {name: np.full(w.shape, 0.5) for name, w in g.items()}
        places = [(p.key, p.block, (slice(None), slice(p.column, p.column + p.columns)))
                  for p in self.design.placements] + [(name, name, ()) for name in g if name.startswith("vector")]
        for key, name, place in places:
            if key in used:
                bound[name][place] += np.abs(g[name][place]) * 2.0 ** -(arith.rate_shift(used[key][1]) + 1)
        self.model.update(used)
        after = {**self.model.masters, **{f"vector{i}": v for i, v in enumerate(self.model.vectors)}}
        start = to_values(self.design, words, self.design.values)
        got, off = (to_values(self.design, w, start) for w in (after, {n: words[n] + bound[n] for n in words}))
        for name, mean in gradients(self.design, g, samples).items():
            self._parameter("update", name, start[name] - rate * 2.0**-self.model.gain * mean, got[name],
                            np.abs(off[name] - start[name]))

    def _words(self) -> Words:
        return self.model.gradients | {f"vector{i}": g for i, g in enumerate(self.model.vector_gradients)}

    def _parameter(self, phase: str, name: str, expected: np.ndarray, got: np.ndarray, bound: np.ndarray) -> None:
        """Keep the first element beyond its bound, relative to the largest."""
        bound = bound + _RELATIVE * np.abs(expected).max(initial=0.0)
        over = np.argwhere(np.abs(got - expected) > bound)
        if self.found.divergence is None and len(over):
            place = tuple(int(i) for i in over[0])
            self.found.divergence = Divergence(phase, "parameter", float(expected[place]), float(got[place]),
                                               state=name, unit=place, tolerance=float(bound[place]))
