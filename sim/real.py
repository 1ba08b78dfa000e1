"""The network in float64, with the weights that the chip's sweeps see: what all rounding is measured against."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from echolith.compiler.agree import updates
from echolith.compiler.calibrate import force
from echolith.compiler.costs import slope
from echolith.compiler.derived import chained
from echolith.compiler.design import Design
from echolith.compiler.differentiate import derivative, evaluate, names
from echolith.compiler.kinetic import velocity
from echolith.compiler.steps import part
from echolith.sim.adjoint import gradient as adjoint
from echolith.sim.adjoint import read, reading, slopes
from echolith.sim.weights import Words, seen, to_values

__all__ = ["Gradient", "Real", "goals"]

_NUDGE = 1e-4  # of a float64 echo: errors grow with its square, rounding with its inverse

Gradient = dict[str, np.ndarray]


def goals(design: Design, target: np.ndarray) -> np.ndarray:
    """Targets from words; NaN where one is missing."""
    real = target * 2.0 ** -design.fractions["target"]
    return real if design.missing is None else np.where(target == design.missing, np.nan, real)


class Real:
    """Forces, read-outs and gradients in user's units; states are (samples, units), all of them in one array."""

    def __init__(self, design: Design, words: Words):
        width, f = design.hardware.width, design.fractions
        swept = {b.name: seen(design.hardware, words[b.name]) for b in design.blocks}
        rounded = {name: (swept[name] if name in swept else w >> width) << width for name, w in words.items()}
        self.design = dataclasses.replace(design, values=to_values(design, rounded, design.values))
        if "readout" in swept:
            self.readout_matrix = swept["readout"] * 2.0 ** -f["readout"]

    def force(self, q: np.ndarray, u: np.ndarray) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        """All vectors of an evaluation, and dt * dV/dq."""
        places = self._split(q)
        env, kicks = force(self.design.forces, self.design, {**places, "u": u}, self.design.values)
        return env, np.concatenate([np.broadcast_to(kicks.get(s, 0.0), v.shape) for s, v in places.items()], axis=1)

    def _split(self, states: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum(list(self.design.states.values()))
        return dict(zip(self.design.states, np.split(states, ends[:-1], axis=1), strict=True))

    def drift(self, p: np.ndarray) -> np.ndarray:
        """dt * dT/dp."""
        moved = velocity(self.design.kinetic, self.design.values, self._split(p))
        return self.design.dynamics.dt * np.concatenate(list(moved.values()), axis=1)

    def masses(self, p: np.ndarray) -> Gradient:
        """dt * dT/dparameter summed over the samples."""
        found: Gradient = {}
        flat = {name: np.asarray(v).reshape(-1) for name, v in self.design.values.items()}
        for state, momenta in self._split(p).items():
            expr = self.design.kinetic[state]
            for name in names(expr) - {"p"}:
                g = np.broadcast_to(evaluate(derivative(expr, name), {**flat, "p": momenta}), momenta.shape)
                total = g.sum(0) if flat[name].size == g.shape[1] else g.sum()
                shape = np.shape(self.design.values[name])
                found[name] = found.get(name, 0.0) + self.design.dynamics.dt * np.reshape(total, shape)
        return found

    def readout(self, q: np.ndarray) -> np.ndarray:
        if self.design.reading:
            return read(self.design, self.design.values, q)
        c = self.readout_matrix
        return np.concatenate([q, np.ones((len(q), 1))], axis=1)[:, :c.shape[1]] @ c.T

    def error(self, q: np.ndarray, target: np.ndarray) -> np.ndarray:
        """dcost/dy of every output; none for a missing target, NaN."""
        y, cost = self.readout(q), self.design.cost
        assert cost is not None
        known = cost.given(y, np.nan_to_num(target))
        return np.where(np.isnan(target), 0.0, np.broadcast_to(evaluate(slope(cost), known), y.shape))

    def nudge(self, q: np.ndarray, target: np.ndarray) -> np.ndarray:
        """dcost/dq."""
        if self.design.reading:
            return slopes(self.design, self._read(q, target), q) / -2
        return self.error(q, target) @ self.readout_matrix[:, :self.design.units]

    def _read(self, q: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        return reading(self.design, self.design.values, q, self.error(q, target))

    def updates(self, env: Mapping[str, np.ndarray], samples: slice | np.ndarray) -> Gradient:
        """dt * dV/dparameter summed over some samples of an evaluation."""
        flat = set(self.design.values)
        return updates(self.design, self.design.passes,
                       {name: v if name in flat else v[samples] for name, v in env.items()}, self.design.dynamics.dt)

    def own(self, q: np.ndarray, target: np.ndarray) -> Gradient:
        """The readout's own gradient at one read-out, summed over the samples."""
        found: Gradient = {}
        if self.design.reading:
            grown = updates(self.design, self.design.reading, self._read(q, target), self.design.dynamics.dt)
            return {name: g * (self.design.dynamics.cost_scale / -2) for name, g in grown.items()}
        x = np.concatenate([q, np.ones((len(q), 1))], axis=1)
        g = self.design.dynamics.cost_scale * self.error(q, target).T @ x
        for p in self.design.placements:
            if p.block != "readout":
                continue
            here = g[:, p.column:p.column + p.columns] * p.scale
            for name, transposed, window in zip(p.parameters, p.transposed, p.windows, strict=True):
                place = part(found.setdefault(name, np.zeros(np.shape(self.design.values[name]))), window)
                place += (here.T if transposed else here).reshape(place.shape)
        return found

    def forward(self, x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions and momenta after 0, 1, ... steps, up to the last read-out."""
        d = self.design.dynamics
        q = p = np.zeros((len(x), self.design.units))
        found = [(q, p)]
        for step in range(d.steps * d.substeps - 1):
            p = p - self.force(q, x[:, step // d.substeps])[1]
            q = q + self.drift(p)
            found.append((q, p))
        return found

    def gradient(self, x: np.ndarray, target: np.ndarray) -> Gradient:
        """Of the batch mean of the cost, by an echo with a nudge so small that it is the derivative; of a stack by the
        adjoint method."""
        if self.design.between:
            return adjoint(self.design, self.design.values, x, target)
        d, run = self.design.dynamics, self.forward(x)
        found = {name: np.zeros(np.shape(value)) for name, value in self.design.values.items()}
        reads = range(d.steps) if d.cost_at == "every" else [d.steps - 1]
        for row, goal in zip(reads, np.moveaxis(target, 1, 0), strict=True):
            _add(found, self.own(run[(row + 1) * d.substeps - 1][0], goal), 1.0)
        for sign in (1, -1):
            q, p = run[-1]
            for step in range(len(run), 0, -1):
                row, kick = (step - 1) // d.substeps, 0.0
                if step < len(run):
                    env, kick = self.force(q, x[:, row])
                    _add(found, self.updates(env, slice(None)), -sign * d.cost_scale / (2 * _NUDGE))
                if step == len(run) or (d.cost_at == "every" and step % d.substeps == 0):
                    goal = target[:, row if d.cost_at == "every" else 0]
                    kick = kick - sign * _NUDGE * self.nudge(run[step - 1][0], goal)
                p = p + kick
                _add(found, self.masses(p), -sign * d.cost_scale / (2 * _NUDGE))
                q = q - self.drift(p)
        own = chained(self.design.derived, found, self.design.values, frozenset(self.design.learned))
        return {name: own[name] / len(x) for name in self.design.learned}


def _add(found: Gradient, more: Gradient, factor: float) -> None:
    for name in found.keys() & more.keys():
        found[name] += factor * more[name]
