"""How far one evaluation of the force may be from float64's: error bounds of all its sweeps, one after the other."""

from collections.abc import Sequence

import numpy as np

from echolith.compiler.isa import Opcode
from echolith.compiler.sweep import Sweep
from echolith.sim import arith
from echolith.sim.bound import Bounded, bounds
from echolith.sim.model import IntegerModel
from echolith.sim.weights import Words

__all__ = ["Allowance", "nudge_bound", "readout_bound"]

_ZERO = np.zeros(())


class Allowance:
    """At exact positions ``q`` and data words ``u``; of all sweeps of the force unless others are given.

    ``kick`` bounds the kicks' error, (samples, units) in words of a state. With ``scale``, the samples' exponents less
    the gain, ``gradients`` bounds the error of what the evaluation adds to each gradient word. ``kept`` are the last
    sums that a sweep put beside the drives."""

    def __init__(self, model: IntegerModel, q: np.ndarray, u: np.ndarray, scale: np.ndarray | None = None,
                 sweeps: Sequence[Sweep] | None = None):
        self.model, self.u, self.scale = model, u, None if scale is None else scale[:, None]
        design = model.design
        self.v = np.zeros((len(q), design.elements), np.int64)
        self.v[:, :design.units] = q
        self.v[:, design.units] = 1 << design.fractions["state"]
        self.error = np.zeros(self.v.shape)
        self.rows: dict[int, Bounded] = {}
        self.drive, self.loose = model.drive(u), _drive_bound(model, u)
        self.kick = np.zeros(q.shape)
        self.gradients: Words = {n: np.zeros(m.shape) for n, m in model.masters.items()}
        self.gradients |= {f"vector{i}": np.zeros(len(v)) for i, v in enumerate(model.vectors)}
        self.kept: Bounded = np.zeros((len(q), 0), np.int64), _ZERO
        self.run((*design.feeds, *design.sweeps) if sweeps is None else sweeps)

    def run(self, sweeps: Sequence[Sweep]) -> None:
        """More sweeps, after those before."""
        for sweep in sweeps:
            if sweep.contrast and not sweep.learn:
                continue
            if sweep.opcode == Opcode.FORWARD:
                self._forward(sweep)
            elif sweep.opcode == Opcode.OUTER:
                self._outer(sweep)
            else:
                self._element(sweep)

    def _x(self, sweep: Sweep) -> Bounded:
        columns = self.model.design.block(sweep.block).columns
        if sweep.input:
            return self.model.operands(self.u, columns), _ZERO
        first = sweep.first if sweep.gather else sweep.source
        x, error = self._operand(first, columns * (sweep.repeat + 1), sweep.gather)
        return x.reshape(-1, columns), error.reshape(-1, columns)

    def _operand(self, first: int, length: int, gather: bool) -> Bounded:
        place = self.model.index[first:first + length] if gather else slice(first, first + length)
        return self.v[:, place], self.error[:, place]

    def _t(self, sweep: Sweep, words: Bounded) -> Bounded:
        """Row operands of all walks over the block, as in `model.Force`."""
        rows, count = self.model.design.block(sweep.block).rows, sweep.repeat + 1
        t, error = words[0], np.broadcast_to(words[1], words[0].shape)
        return t.reshape(len(t) * count, -1)[:, :rows], error.reshape(len(t) * count, -1)[:, :rows]

    def _bounds(self, pipeline, **inputs: Bounded) -> dict[str, Bounded]:
        hw = self.model.hw
        return bounds(pipeline, inputs, self.model.design.tables, hw.width, hw.segments)

    def _keep(self, sweep: Sweep, words: Bounded) -> None:
        if sweep.maximum:
            largest, error = (np.max(a, axis=1) for a in words)
            self.v[:, sweep.place], self.error[:, sweep.place] = largest, error
        elif sweep.value:
            place = slice(sweep.place, sweep.place + sweep.length)
            self.v[:, place], self.error[:, place] = words
        if sweep.rows:
            self.rows[sweep.tile] = words

    def _forward(self, sweep: Sweep) -> None:
        w = self.model.swept(sweep.block)
        x, error = _operand(self.model, *self._x(sweep))
        acc, error = x @ w.T, np.broadcast_to(error, x.shape) @ np.abs(w).T
        acc, error = acc.reshape(len(self.v), -1), error.reshape(len(self.v), -1)
        if sweep.kept:
            self.kept = self.model.arrays.kept(acc), error * 2.0**-self.model.hw.drive_shift + 0.5
            return
        drive = self.drive[:, sweep.drive:sweep.drive + sweep.length]
        self._keep(sweep, self._bounds(self.model.hw.activate[sweep.kind], acc=(acc, error),
                                       drive=(drive, self.loose[:, sweep.drive:sweep.drive + sweep.length]))["t"])

    def _outer(self, sweep: Sweep) -> None:
        if self.scale is None:
            return
        (t, te), (x, xe) = self._t(sweep, self._contrast(*self.rows[sweep.tile])), self._x(sweep)
        self.gradients[sweep.block] += te.T @ (np.abs(x) + xe) + t.T @ np.broadcast_to(xe, x.shape)

    def _contrast(self, words: np.ndarray, error: np.ndarray) -> Bounded:
        """Magnitudes at the scale of the gradient."""
        assert self.scale is not None
        return np.abs(arith.shr(words, self.scale)), error * 2.0**-self.scale + 0.5

    def _element(self, sweep: Sweep) -> None:
        n, w = sweep.length, self.model.hw.width
        acc, error = np.zeros((len(self.v), n), np.int64), np.zeros((len(self.v), n))
        if sweep.opcode == Opcode.TRANSPOSED:
            matrix = self.model.swept(sweep.block)
            t, te = _operand(self.model, *self._t(sweep, self.rows[sweep.tile]))
            acc, error = (a.reshape(acc.shape) for a in (t @ matrix, te @ np.abs(matrix)))
        if not (sweep.opcode == Opcode.TRANSPOSED or sweep.force or sweep.value or sweep.rows or sweep.learn):
            return  # a drift alone
        q, r = self._operand(sweep.first, n, sweep.gather), self._operand(sweep.second, n, sweep.gather_second)
        words = {f"k{i}": (np.broadcast_to((v >> w)[:n], acc.shape), _ZERO) for i, v in enumerate(self.model.vectors)
                 if len(v) in (1, n)}
        found = self._bounds(self.model.hw.step[sweep.kind], acc=(acc, error), q=q, r=r, **words)
        self._learn(sweep, found)
        force, error = (np.broadcast_to(a, acc.shape) for a in found["force"])
        if sweep.contrast:
            return
        if sweep.value or sweep.rows:
            self._keep(sweep, (force, error))
        elif not sweep.echo_only:
            first = sweep.place if sweep.gather else sweep.first
            self.kick[:, first:first + n] += error

    def _learn(self, sweep: Sweep, found: dict[str, Bounded]) -> None:
        if self.scale is None or not sweep.learn:
            return
        for name in [n for n in found if n.startswith("g")]:
            total = self.gradients[f"vector{name[1:]}"]
            error = np.broadcast_to(self._contrast(*found[name])[1], (len(self.v), sweep.length))
            total += error.sum(0) if len(total) == sweep.length else error.sum()


class Drifting:
    """``drift`` bounds the error of the positions' changes at exact momenta ``p``; ``gradients``, with a ``scale`` as
    above, what they add to the gradient words of masses."""

    def __init__(self, model: IntegerModel, p: np.ndarray, scale: np.ndarray | None):
        hw, w = model.hw, model.hw.width
        self.drift = np.zeros(p.shape)
        self.gradients: Words = {f"vector{i}": np.zeros(len(v)) for i, v in enumerate(model.vectors)}
        for place in model.design.drifts:
            here = slice(place.first, place.first + place.length)
            inputs = {f"k{i}": ((v if len(v) == 1 else v[:place.length]) >> w, _ZERO)
                      for i, v in enumerate(model.vectors)}
            found = bounds(hw.drift[place.kind], inputs | {"p": (p[:, here], _ZERO)}, model.design.tables, w,
                           hw.segments)
            self.drift[:, here] = found.pop("d")[1]
            for name, (_, error) in found.items() if scale is not None else ():
                error = np.broadcast_to(error * 2.0**-scale[:, None] + 0.5, (len(p), place.length))
                total = self.gradients[f"vector{name[1:]}"]
                total += error.sum(0) if len(total) == place.length else error.sum()


def readout_bound(model: IntegerModel, q: np.ndarray, target: np.ndarray) -> dict[str, Bounded]:
    """Output words ``y`` and cost derivatives ``delta`` at exact positions."""
    return _cost(_pair(model, q, np.zeros((len(q), model.design.inputs), np.int64), None), target)


def _operand(model: IntegerModel, words: np.ndarray, error: np.ndarray) -> Bounded:
    """Operands of products, which packed ones round."""
    rounded = model.narrow(words)
    return rounded, np.where(error == 0, np.abs(rounded - words), error + _step(model))


def _step(model: IntegerModel) -> int:
    """The last place of an operand, if it is rounded."""
    return 0 if model.hw.packed is None else 1 << model.hw.width - model.hw.packed.operand


def _drive_bound(model: IntegerModel, u: np.ndarray) -> np.ndarray:
    """Of all kept drives, (samples, rows)."""
    found = np.full(model.drive(u).shape, 0.5)
    for name, first in model.design.kept_drives.items():
        w = np.abs(model.swept(name))
        error = _operand(model, model.operands(u, w.shape[1]), _ZERO)[1]
        found[:, first:first + len(w)] += error @ w.T * 2.0**-model.hw.drive_shift
    return found


def _pair(model: IntegerModel, q: np.ndarray, u: np.ndarray, scale: np.ndarray | None) -> Allowance:
    """Of the sweeps before a cost."""
    return Allowance(model, q, u, scale, (*model.design.reads, *model.design.levels))


def _cost(pair: Allowance, target: np.ndarray) -> dict[str, Bounded]:
    model, place = pair.model, pair.model.design.read_place
    w = model.swept("readout")
    x, error = _operand(model, *(a[:, place:place + w.shape[1]] for a in (pair.v, pair.error)))
    assert model.hw.cost is not None
    acc = x @ w.T, error @ np.abs(w).T
    return bounds(model.hw.cost, {"acc": acc, "target": (target, _ZERO), "drive": pair.kept},
                  model.design.tables, model.hw.width, model.hw.segments)


def nudge_bound(model: IntegerModel, q: np.ndarray, u: np.ndarray, target: np.ndarray, exponent: np.ndarray
                ) -> tuple[np.ndarray, Words]:
    """Of the nudges' words, and of what a read-out's own passes add to each gradient word."""
    pair, hw, design = _pair(model, q, u, exponent - model.gain), model.hw, model.design
    delta, error = _cost(pair, target)["delta"]
    error = np.broadcast_to(error * 2.0 ** (exponent[:, None] - hw.delta_shift) + 0.5, delta.shape)
    error = error + _step(model)
    if not design.backs:
        w = np.abs(model.swept("readout")[:, :design.units])
        return error @ w * 2.0**-hw.nudge_shift + 0.5, pair.gradients
    pair.rows[0] = arith.sat(arith.rnd(delta << exponent[:, None], hw.delta_shift), hw.width), error
    pair.run(design.backs)
    error = np.broadcast_to(pair.rows[design.backs[-1].tile][1], q.shape)
    return error * abs(int(model.swept("nudge")[0, 0])) * 2.0**-hw.nudge_shift + 0.5, pair.gradients
