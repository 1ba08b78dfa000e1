"""One step of the integer model: the sweeps of the force, kicks and drifts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from echolith.compiler.isa import Opcode
from echolith.compiler.sweep import Sweep
from echolith.sim import arith
from echolith.sim.arrays import Arrays
from echolith.sim.inputs import Row
from echolith.sim.state import Outcome, State

if TYPE_CHECKING:
    from echolith.sim.model import IntegerModel

__all__ = ["Contrast", "Force", "Motion"]

Array = np.ndarray


class Contrast:
    """Words at the scale of the gradient, of the first ``len(scale)`` samples; from sample ``minus`` on negative."""

    def __init__(self, arrays: Arrays, scale: Array, minus: int):
        self.arrays, self.scale = arrays, scale.astype(np.int64)[:, None]
        self.sign = np.where(np.arange(len(scale)) < minus, 1, -1)[:, None]

    def __len__(self) -> int:
        return len(self.scale)

    def __call__(self, words: Array) -> Array:
        """Contributions to gradients of vector parameters."""
        return self.arrays.scaled(words[:len(self)], self.scale, self.sign)

    def rows(self, words: Array) -> Array:
        """Row operands, which come through the barrel shifter."""
        return self.arrays.rows(words[:len(self)], self.scale, self.sign)


class Motion:
    """Kicks and drifts ``s`` in place; a wrap is recorded in ``out`` with the place given. With a ``contrast`` the
    gradients of vector parameters are accumulated."""

    def __init__(self, model: "IntegerModel", s: State, where: tuple, out: Outcome, reverse: bool = False,
                 contrast: Contrast | None = None):
        self.model, self.arrays, self.s, self.where, self.out = model, model.arrays, s, where, out
        self.reverse, self.contrast = reverse, contrast

    def push(self, nudge: Array | int) -> None:
        """All units, without a force."""
        self._pushed(slice(0, self.s.p.shape[1]), self.arrays.push(self.s.p, nudge, self.reverse))

    def kick(self, nudge: Array) -> None:
        """All units by nudges alone, which move no position."""
        self._pushed(slice(0, self.s.p.shape[1]), self.arrays.push(self.s.p, nudge, self.reverse), drift=False)

    def _pushed(self, units: slice, wrapped: Array | None, drift: bool = True) -> None:
        """What follows a kick of some units, of whose momenta some may have wrapped."""
        left = [(units.start, wrapped)]
        if drift:
            left += self._drift(self.s.p[:, units], units.start)
        if any(words is not None for _, words in left):
            self.record(left)

    def _drift(self, p: Array, first: int) -> list[tuple[int, Array | None]]:
        """Change the positions of units from ``first`` on by functions of their momenta."""
        model, found = self.model, []
        for place in model.design.drifts:
            a, b = max(place.first, first), min(place.first + place.length, first + p.shape[1])
            if a < b:
                own = slice(a - place.first, b - place.first)
                inputs = {f"k{i}": (v if len(v) == 1 else v[own]) >> model.hw.width
                          for i, v in enumerate(model.vectors)}
                outputs, left = self.arrays.drift(model.hw.drift[place.kind], self.s.q[:, a:b],
                                                  inputs | {"p": p[:, a - first:b - first]}, self.reverse)
                self._gather(outputs, (len(p), b - a))
                found.append((a, left))
        return found

    def record(self, left: list[tuple[int, Array | None]]) -> None:
        """Of words that wrapped, by first unit, the first one. In an echo + and - come before copy 0."""
        if not self.out.wrapped:
            every = np.zeros(self.s.q.shape, bool)
            for start, words in left:
                if words is not None:
                    every[:, start:start + words.shape[1]] |= words
            sample, unit = (int(i) for i in np.argwhere(every)[0])
            phase, step = self.where
            if self.contrast is not None and sample >= len(self.contrast):
                phase, sample = "return", sample - len(self.contrast)
            self.out.first = {"phase": phase, "step": step, "sample": sample, "unit": unit}
        self.out.wrapped = True

    def _gather(self, found: dict[str, Array], shape: tuple[int, ...]) -> None:
        """Accumulate a pipeline's gradients of vector parameters."""
        for i, gradient in enumerate(self.model.vector_gradients if self.contrast is not None else ()):
            if f"g{i}" in found:
                g = self.contrast(np.broadcast_to(found[f"g{i}"], shape))
                gradient += g.sum(0) if len(gradient) == shape[1] else g.sum()


class Force(Motion):
    """One evaluation of the force at a state: the design's sweeps, one after the other.

    With a ``contrast`` it accumulates all gradients. ``nudge`` is applied where a state drifts."""

    def __init__(self, model: "IntegerModel", s: State, row: Row, where: tuple, out: Outcome, reverse: bool = False,
                 nudge: Array | int = 0, contrast: Contrast | None = None):
        super().__init__(model, s, where, out, reverse, contrast)
        self.row, self.nudge = row, nudge
        assert s.v is not None
        self.v = s.v
        self.kept = row.drive
        self.rows: dict[int, Array] = {}  # by first tile; float64, for products
        self._scaled: dict[int, Array] = {}  # of them, for gradients
        self._columns: dict[tuple, Array] = {}  # column operands, for products

    def run(self, sweeps: Sequence[Sweep] | None = None) -> None:
        for sweep in self.model.design.sweeps if sweeps is None else sweeps:
            if self.contrast is not None or not sweep.echo_only:
                {Opcode.FORWARD: self._forward, Opcode.OUTER: self._outer, Opcode.TRANSPOSED: self._transposed,
                 Opcode.UNITS: self._units}[Opcode(sweep.opcode)](sweep)

    def _x(self, sweep: Sweep) -> Array:
        """Column operands, (samples, columns of all walks), float64."""
        columns, summed = self.model.masters[sweep.block].shape[1], sweep.opcode == Opcode.FORWARD
        if sweep.input:
            return self.row.operands(columns, summed)
        first, columns = sweep.first if sweep.gather else sweep.source, columns * (sweep.repeat + 1)
        key = sweep.gather, first, columns, summed
        if key not in self._columns:
            words = self._operand(first, columns, sweep.gather)
            self._columns[key] = (self.model.narrow(words) if summed else words).astype(np.float64)
        return self._columns[key]

    def _t(self, sweep: Sweep, words: Array) -> Array:
        """Row operands, (samples * walks, rows): every walk's begin with a tile of their own."""
        rows = len(self.model.masters[sweep.block])
        return words.reshape(len(words) * (sweep.repeat + 1), -1)[:, :rows]

    def _keep(self, sweep: Sweep, words: Array) -> None:
        """Results, int64 or float64."""
        place = slice(sweep.place, sweep.place + sweep.length)
        if sweep.value:
            words = arith.wrap(np.asarray(words, np.int64), self.model.hw.width)
            self._columns.clear()
        if sweep.maximum:
            self.v[:, sweep.place] = words.max(axis=1)
        elif sweep.contrast:  # of the + and - echoes, kept with the un-nudged copies behind them
            n = len(self.v) // 3
            self.v[2 * n:, place] = arith.wrap(words[:n] - words[n:2 * n], self.model.hw.width)
        elif sweep.value:
            self.v[:, place] = words
        if sweep.rows:
            self.rows[sweep.tile] = np.asarray(words, np.float64)
            self._scaled.pop(sweep.tile, None)

    def _forward(self, sweep: Sweep) -> None:
        w = self.model.operand(sweep.block, transposed=True)
        acc = self.arrays.sums(self._x(sweep).reshape(-1, len(w)), w)
        acc = acc.reshape(len(self.v), -1) if sweep.repeat else acc
        if sweep.kept:
            self.kept = self.arrays.kept(acc)
            return
        drive = self.row.drive[:, sweep.drive:sweep.drive + sweep.length]
        found = self.arrays.run(self.model.hw.activate[sweep.kind], {"acc": acc, "drive": drive})
        self._keep(sweep, found["t"])

    def _outer(self, sweep: Sweep) -> None:
        assert self.contrast is not None
        if sweep.tile not in self._scaled:
            self._scaled[sweep.tile] = self.contrast.rows(self.rows[sweep.tile])
        t, x = self._t(sweep, self._scaled[sweep.tile]), self._x(sweep)[:len(self.contrast)]
        gradient = self.model.gradients[sweep.block]
        gradient += self.arrays.product(t.T, x.reshape(-1, gradient.shape[1]))

    def _transposed(self, sweep: Sweep) -> None:
        t = self.model.narrow(self._t(sweep, self.rows[sweep.tile]))
        acc = self.arrays.sums(t, self.model.operand(sweep.block))
        self._element(sweep, acc.reshape(len(self.v), -1) if sweep.repeat else acc)

    def _units(self, sweep: Sweep) -> None:
        self._element(sweep, np.zeros((len(self.v), sweep.length), np.int64))

    def _element(self, sweep: Sweep, acc: Array) -> None:
        """A pass of the neuron unit."""
        kicks = sweep.opcode == Opcode.TRANSPOSED or sweep.force
        if sweep.value or sweep.rows or sweep.echo_only:
            found = self.arrays.run(self.model.hw.step[sweep.kind], self._inputs(sweep, acc))
            self._learn(sweep, found, acc.shape)
            if sweep.value or sweep.rows:
                self._keep(sweep, np.broadcast_to(found["force"], acc.shape))
        else:
            self._kick(sweep, self._inputs(sweep, acc) if kicks or sweep.learn else {}, kicks)

    def _kick(self, sweep: Sweep, inputs: dict[str, Array], kicks: bool) -> None:
        """Of a pass that moves its units, if only by their drift."""
        first = sweep.place if sweep.gather else sweep.first
        units = slice(first, first + sweep.length)
        p, pipeline = self.s.p[:, units], self.model.hw.step[sweep.kind]
        nudge = self.nudge[:, units] if sweep.drift and isinstance(self.nudge, np.ndarray) else 0
        found: dict[str, Array] = {}
        if kicks:
            found, wrapped = self.arrays.kick(pipeline, p, inputs, nudge, self.reverse)
        else:
            found = self.arrays.run(pipeline, inputs) if inputs else {}
            wrapped = self.arrays.push(p, nudge, self.reverse)
        self._learn(sweep, found, p.shape)
        self._pushed(units, wrapped, sweep.drift)
        self._columns.clear()

    def _learn(self, sweep: Sweep, found: dict[str, Array], shape: tuple[int, ...]) -> None:
        if sweep.learn:
            self._gather(found, shape)

    def _inputs(self, sweep: Sweep, acc: Array) -> dict[str, Array]:
        n, w = sweep.length, self.model.hw.width
        words = {f"k{i}": (v >> w)[:n] for i, v in enumerate(self.model.vectors) if len(v) in (1, n)}
        return words | {"acc": acc, "q": self._operand(sweep.first, n, sweep.gather),
                        "r": self._operand(sweep.second, n, sweep.gather_second)}

    def _operand(self, first: int, length: int, gather: bool) -> Array:
        return self.v[:, self.model.index[first:first + length] if gather else slice(first, first + length)]
