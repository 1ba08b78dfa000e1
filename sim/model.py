"""The integer model: the definition of every bit the chip computes, vectorised over samples. numpy only."""

from collections.abc import Iterator

import numpy as np

from echolith.compiler.design import Block, Design
from echolith.compiler.isa import shrunk
from echolith.compiler.registers import LARGE_BITS
from echolith.sim import arith
from echolith.sim.arrays import Arrays
from echolith.sim.force import Contrast, Force, Motion
from echolith.sim.inputs import Inputs, Row
from echolith.sim.stacks import step_back
from echolith.sim.state import Outcome, State
from echolith.sim.weights import seen

__all__ = ["SHIFT_LIMIT", "IntegerModel"]

SHIFT_LIMIT = 31  # largest exponent of a sample; all ones

Array = np.ndarray


class IntegerModel:
    """Weights, gradients and dynamics of one `Design` in integers."""

    def __init__(self, design: Design, arrays: Arrays | None = None):
        self.design, self.hw, self.arrays = design, design.hardware, arrays or Arrays(design)
        self.response, self.gain, self.index = design.response, design.gain, np.array(design.index, np.int64)
        self.masters = {b.name: np.zeros((b.rows, b.columns), np.int64) for b in design.blocks}
        self.vectors = [np.zeros(v.length, np.int64) for v in design.vectors]
        self.clear()

    def clear(self) -> None:
        """Forget all gradients."""
        self.gradients = {name: np.zeros_like(m) for name, m in self.masters.items()}
        self.vector_gradients = [np.zeros_like(v) for v in self.vectors]

    # -- pieces ----------------------------------------------------------------------------------------------------

    def _block(self, name: str) -> Block:
        return self.design.block(name)

    @property
    def masters(self) -> dict[str, Array]:
        """Master words by block; what changes them in place is `update`."""
        return self._masters

    @masters.setter
    def masters(self, words: dict[str, Array]) -> None:
        self._masters, self._swept = words, {}

    def swept(self, name: str) -> Array:
        """Weights of a block as the sweeps see them."""
        return seen(self.hw, self.masters[name])

    def narrow(self, words: Array) -> Array:
        """Columns, inputs or rows as products see them; float64 stays float64."""
        packed = self.hw.packed
        return words if packed is None else arith.operand(words, self.hw.width, packed.operand)

    def operand(self, name: str, transposed: bool = False) -> Array:
        """What the sweeps see of a block as float64, (rows, columns) or (columns, rows)."""
        if (name, transposed) not in self._swept:
            words = self.swept(name)
            self._swept[name, transposed] = np.array(words.T if transposed else words, np.float64, order="C")
        return self._swept[name, transposed]

    def drive(self, u: Array) -> Array:
        """(samples, inputs) data words -> (samples, rows of all kept drives)."""
        rows = [(first, self._block(name)) for name, first in self.design.kept_drives.items()]
        kept = np.zeros((len(u), max((first + b.rows for first, b in rows), default=0)), np.int64)
        for first, block in rows:
            x = self.narrow(self.operands(u, block.columns))
            acc = self.arrays.sums(x, self.operand(block.name, transposed=True))
            kept[:, first:first + block.rows] = self.arrays.kept(acc)
        return kept

    def operands(self, u: Array, columns: int) -> Array:
        """Data words as operands, and the constant one beside them."""
        words = np.empty((len(u), columns), np.int64)
        inputs = min(columns, self.design.inputs)
        words[:, :inputs] = u[:, :inputs] << self.hw.input_shift
        words[:, inputs:] = self._one
        return words

    @property
    def _one(self) -> int:
        """The constant one beside the inputs."""
        return 1 << self.design.fractions["input"] + self.hw.input_shift

    def readout(self, q: Array, target: Array) -> tuple[Array, Array]:
        """Output words and cost derivatives."""
        return self._cost(self._pair(q), target)

    def _pair(self, q: Array, u: Array | None = None, exponent: Array | None = None) -> Force:
        """The un-nudged copies of samples at a read-out; with exponents they accumulate gradients."""
        u = np.zeros((len(q), self.design.inputs), np.int64) if u is None else u
        drive = self.drive(u) if self.design.reads else np.zeros((len(q), 0), np.int64)
        def operands(columns: int, summed: bool) -> Array:
            words = self.operands(u, columns)
            return self.narrow(words) if summed else words

        contrast = None if exponent is None else Contrast(self.arrays, exponent - self.gain, len(q))
        row = Row(drive, operands)
        return Force(self, self._state(q, np.zeros_like(q)), row, ("cost", 0), Outcome(), contrast=contrast)

    def _cost(self, pair: Force, target: Array) -> tuple[Array, Array]:
        """Its outputs and cost derivatives."""
        w, place = self.swept("readout"), self.design.read_place
        pair.run(self.design.reads)
        x = self.narrow(pair.v[:, place:place + w.shape[1]])
        acc = self.arrays.product(x, w.T)
        pair.run(self.design.levels)
        out = self.arrays.run(self.hw.cost, {"acc": acc, "target": target, "drive": pair.kept})
        return out["y"], out.get("delta", out["y"])

    def nudge(self, pair: Force, target: Array, exponent: Array) -> Array:
        """Scaled cost derivatives back at the units."""
        return self._back(pair, self._cost(pair, target)[1], exponent)

    def _back(self, pair: Force | None, delta: Array, exponent: Array) -> Array:
        """The nudges of cost derivatives; a read-out with passes behind its cost needs the ``pair``."""
        t = arith.sat(self.arrays.dropped(delta << exponent[:, None], self.hw.delta_shift), self.hw.width)
        w = self.swept("readout")[:, :self.design.units]
        if pair is not None and self.design.backs:
            pair.rows[0] = t.astype(np.float64)
            pair.run(self.design.backs)
            t, w = pair.rows[self.design.backs[-1].tile].astype(np.int64), self.swept("nudge")[0, 0]
            return arith.sat(arith.rnd(t * w, self.hw.nudge_shift), self.hw.width)
        return arith.sat(arith.rnd(self.arrays.product(self.narrow(t), w), self.hw.nudge_shift), self.hw.width)

    # -- motion ----------------------------------------------------------------------------------------------------

    def _step(self, s: State, row: Row, where: tuple, out: Outcome, **options) -> None:
        """Move all copies in ``s`` by one step, in place."""
        force = Force(self, s, row, where, out, **options)
        if self.design.feeds:
            force.run(self.design.feeds)
            force.run()
        elif not self.arrays.step(force):
            force.run()

    def _step_back(self, copies: State, where: tuple, *rest) -> None:
        """Undo a step of a stack's copies, in place; see `stacks.step_back`."""
        step_back(self, copies, where, *rest)

    def _turn(self, s: State, nudge: Array | int, where: tuple, out: Outcome, contrast: Contrast | None = None) -> None:
        """Undo the last drift, after a nudge: where all copies turn back."""
        Motion(self, s, where, out, True, contrast).push(nudge)

    def start(self, samples: int) -> State:
        shape = (samples, self.design.units)
        return self._state(np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    def _state(self, q: Array, p: Array) -> State:
        """With its memory."""
        v = np.zeros((len(q), self.design.elements), np.int64)
        v[:, :self.design.units] = q
        v[:, self.design.units] = 1 << self.design.fractions["state"]
        return State(v[:, :self.design.units], p, v)

    def forward(self, x: Array, read, out: Outcome) -> tuple[State, Inputs]:
        """All rows of (samples, steps, inputs); ``read(state, row)`` at every read-out point.

        Returns the state at the last one."""
        d = self.design.dynamics
        s, inputs = self.start(len(x)), Inputs(self, x)
        for row in range(d.steps):
            now = inputs.row(row)
            for substep in range(d.substeps):
                if substep == d.substeps - 1:
                    read(s, row)
                    if row == d.steps - 1:
                        return s, inputs
                self._step(s, now, ("forward", row * d.substeps + substep + 1), out)
        raise AssertionError("a sample has at least one row")

    # -- runs ------------------------------------------------------------------------------------------------------

    def predict(self, x: Array) -> tuple[Array, Outcome]:
        """(samples, steps, inputs) data words -> (samples, read-outs, outputs) words."""
        out, rows = Outcome(), []

        def read(s: State, row: int) -> None:
            if self._reads(row):
                zero = np.zeros((len(x), self.design.outputs), np.int64)
                rows.append(self.readout(s.q, zero)[0] if self.hw.cost else s.q.copy())

        self.forward(x, read, out)
        return np.stack(rows, axis=1), out

    def _reads(self, row: int) -> bool:
        d = self.design.dynamics
        return d.cost_at == "every" or row == d.steps - 1

    def echo(self, x: Array, trace: list[State] | None = None) -> tuple[State, Outcome]:
        """Forward and back without nudges; returns the state, which must be the initial one."""
        out = Outcome()

        def read(s: State, row: int) -> None:
            if trace is not None:
                trace.append(s.copy())

        s, inputs = self.forward(x, read, out)
        self._retrace(inputs, s, out, trace)
        return s, out

    def _retrace(self, inputs: Inputs, s: State, out: Outcome, trace: list[State] | None = None) -> None:
        """The un-nudged copy, back from the last read-out point, in place."""
        d = self.design.dynamics
        self._turn(s, 0, ("return", d.steps * d.substeps), out)
        now = inputs.row(d.steps - 1)
        for step, row in self._steps_back():
            if step % d.substeps == 0:
                now = inputs.row(row)
                if trace is not None:
                    trace.append(s.copy())
            self._step(s, now, ("return", step), out, reverse=True)
        out.returned(s)

    def _steps_back(self) -> Iterator[tuple[int, int]]:
        """(step, row) of every step that the echo undoes: K-1 down to 1."""
        d = self.design.dynamics
        for step in range(d.steps * d.substeps - 1, 0, -1):
            yield step, (step - 1) // d.substeps

    def learn(self, x: Array, target: Array, checked: bool = True) -> tuple[Array, Outcome]:
        """Accumulate the gradient of (samples, steps, inputs) and (samples, read-outs, outputs) words; not ``checked``:
        without copy 0, by the cost derivatives kept from the free phase.

        Returns the outputs of the free phase, as `predict`."""
        out, rows, kept, leading = Outcome(), [], [], np.zeros(len(x), np.int64)

        def read(s: State, row: int) -> None:
            nonlocal leading
            if self._reads(row):
                y, delta = self.readout(s.q, target[:, len(rows)])
                rows.append(y)
                kept.append(delta)
                leading |= np.bitwise_or.reduce(arith.abs_bits(delta), axis=1)
                if not self.design.backs:
                    self._outer("readout", self._own(delta), s.q, 1 << self.design.fractions["state"])

        s, inputs = self.forward(x, read, out)
        exponent = self.exponents(leading)
        out.leading = int(np.bitwise_or.reduce(leading))
        self._echo(x, inputs, target, s, exponent, out, None if checked else kept)
        self._wrap_gradients()
        return np.stack(rows, axis=1), out

    def exponents(self, leading: Array) -> Array:
        """Of the nudges of samples with these leading bits."""
        return arith.exponent(self.response, arith.msb(leading), self.gain, SHIFT_LIMIT)

    def shares(self, samples: int) -> tuple[Array, Array]:
        """Which samples' + and - echoes are nudged, (samples, 1) each. Where momenta are counted, slot a's are nudged
        one way and slot b's the other; what is not nudged is the way forward again, to the bit, and counted so."""
        if not self.design.rule.counted:
            return np.ones((samples, 1), np.int64), np.ones((samples, 1), np.int64)
        odd = np.arange(samples)[:, None] % 2
        return 1 - odd, odd

    def scales(self, exponent: Array) -> Array:
        """Of the gradients of all samples' + and - echoes, (2 * samples). Samples have no exponent on their way
        forward yet."""
        nudged = np.concatenate(self.shares(len(exponent)))[:, 0] > 0
        return np.where(nudged, np.tile(exponent, 2), self.exponents(np.zeros(1, np.int64))) - self.gain

    def _echo(self, x: Array, inputs: Inputs, target: Array, s: State, exponent: Array, out: Outcome,
              kept: list[Array] | None) -> None:
        """Copies of ``s`` in lock-step, back from the last read-out point: plus, minus and, where no derivatives are
        ``kept``, un-nudged."""
        d, n, count = self.design.dynamics, len(x), 3 if kept is None else 2
        last = d.steps * d.substeps
        copies = self._state(np.tile(s.q, (count, 1)), np.tile(s.p, (count, 1)))
        unnudged, now = copies[2 * n:], inputs.row(d.steps - 1, count)
        contrast = Contrast(self.arrays, self.scales(exponent), n)
        nudge: Array | int = self._nudges(s, x[:, -1], target[:, -1], exponent, kept)
        self._turn(copies, nudge, ("echo", last), out, contrast)
        self._respond(copies[:2 * n], out)
        for step, row in self._steps_back():
            nudge = 0
            if step % d.substeps == 0:
                now = inputs.row(row, count)
                if d.cost_at == "every":
                    nudge = self._nudges(unnudged, x[:, row], target[:, row], exponent, kept)
            if self.design.errors:
                self._step_back(copies, ("echo", step), (now, inputs.row(row)), out, nudge, contrast, exponent)
            else:
                self._step(copies, now, ("echo", step), out, reverse=True, nudge=nudge, contrast=contrast)
            self._respond(copies[:2 * n], out)
        out.returned(unnudged)

    def _nudges(self, s: State, u: Array, target: Array, exponent: Array, kept: list[Array] | None) -> Array:
        """Of all copies, from the cost derivative at the un-nudged one, or the last that is kept."""
        if kept is not None and not self.design.backs:
            nudge = self._back(None, kept.pop(), exponent)
        else:
            nudge = self.nudge(self._pair(s.q, u, exponent), target, exponent)
        plus, minus = self.shares(len(nudge))
        return np.concatenate([nudge * plus, -nudge * minus, *([np.zeros_like(nudge)] if kept is None else [])])

    def _respond(self, nudged: State, out: Outcome) -> None:
        n = len(nudged.q) // 2
        plus, minus = nudged.q[:n], nudged.q[n:]
        if self.design.rule.counted:  # slot a has one sample's + echo, slot b the next one's -
            plus, minus = plus[::2], minus[np.minimum(np.arange(1, n + 1, 2), n - 1)]
        out.response |= self.arrays.spread(plus, minus)

    def _own(self, delta: Array) -> Array:
        """Operand of the readout's own gradient."""
        return arith.sat(self.arrays.dropped(delta << self.gain, self.hw.readout_shift), self.hw.width - 1)

    def _outer(self, block: str, t: Array, x: Array, one: int = 0) -> None:
        if block in self.gradients:
            g = self.gradients[block]
            g[:, :x.shape[1]] += self.arrays.product(t.T, x)
            if g.shape[1] > x.shape[1]:
                g[:, -1] += t.sum(0) * one

    def _wrap_gradients(self) -> None:
        width = arith.gradient_width(self.hw.width)
        self.gradients = {name: arith.wrap(g, width) for name, g in self.gradients.items()}
        self.vector_gradients = [arith.wrap(g, width) for g in self.vector_gradients]

    def update(self, rates: dict[str, tuple[int, int]]) -> Outcome:
        """Check, apply, decay; ``rates`` are (mantissa, coarse shift) by name of the update."""
        out, w = Outcome(), self.hw.width
        words = [*self.gradients.values(), *self.vector_gradients]
        bits = arith.gradient_width(w)
        out.gradient = any(bool(arith.crowded(g, bits, 1).any()) for g in words)
        out.large = any(bool(arith.crowded(g, bits, LARGE_BITS).any()) for g in words)
        if out.gradient:
            self.clear()
            return out
        for placement in self.design.placements:
            columns = slice(placement.column, placement.column + placement.columns)
            words, gradient = self.masters[placement.block][:, columns], self.gradients[placement.block][:, columns]
            words[...] = self._updated(placement.key, words, gradient, rates, out)
        self.vectors = [self._updated(f"vector{i}", words, self.vector_gradients[i], rates, out)
                        for i, words in enumerate(self.vectors)]
        self._swept.clear()
        m, coarse = rates["decay"]
        self.gradients = {name: self._decayed(g, m, coarse) for name, g in self.gradients.items()}
        self.vector_gradients = [self._decayed(g, m, coarse) for g in self.vector_gradients]
        return out

    def _updated(self, key: str, master: Array, gradient: Array, rates: dict[str, tuple[int, int]], out: Outcome
                 ) -> Array:
        """Shrunk, then told of its gradient; by rates of 0 if there are none."""
        if shrunk(key) in rates:
            master = self._applied(master, master >> self.hw.width, rates[shrunk(key)], out)
        return self._applied(master, gradient, rates[key], out) if key in rates else master

    def _applied(self, master: Array, gradient: Array, rate: tuple[int, int], out: Outcome) -> Array:
        summed = master + arith.update(gradient * rate[0], self.hw.width, rate[1])
        out.saturated += int(np.count_nonzero(arith.outside(summed, 2 * self.hw.width)))
        return arith.sat(summed, 2 * self.hw.width)

    def _decayed(self, gradient: Array, mantissa: int, coarse: int) -> Array:
        left = arith.update(gradient * mantissa, self.hw.width, coarse)
        return arith.wrap(left, arith.gradient_width(self.hw.width))
