"""The integer model: the definition of every bit the chip computes, vectorised over samples. numpy only.

Products are summed by float64 BLAS, which is exact below 2^53; `_dot` checks the bound.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from echolith.compiler.design import Block, Design
from echolith.compiler.isa import Opcode
from echolith.compiler.pipeline import Pipeline, evaluate
from echolith.compiler.registers import LARGE_BITS
from echolith.compiler.sweep import Sweep
from echolith.sim import arith

__all__ = ["SHIFT_LIMIT", "IntegerModel", "Outcome", "State"]

SHIFT_LIMIT = 31  # largest exponent of a sample; all ones

Array = np.ndarray


@dataclass
class State:
    """Positions and momenta, (samples, units) int64 words."""

    q: Array
    p: Array

    def copy(self) -> "State":
        return State(self.q.copy(), self.p.copy())


@dataclass
class Outcome:
    """What a run reports besides its outputs."""

    wrapped: bool = False
    echo: bool = False  # copy 0 did not return
    gradient: bool = False
    large: bool = False
    response: int = 0
    leading: int = 0
    saturated: int = 0
    first: dict[str, int | str] = field(default_factory=dict)  # where a state wrapped first: phase, step, sample, unit


def _dot(a: Array, b: Array) -> Array:
    """Exact integer a @ b for int64 matrices."""
    bound = float(np.abs(a).max(initial=0)) * float(np.abs(b).max(initial=0)) * a.shape[-1]
    if bound >= 2.0**53:
        raise OverflowError(f"a sum of products must stay below 2^53 for exact BLAS, not {bound:.3g}")
    return np.rint(a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)


class IntegerModel:
    """Weights, gradients and dynamics of one `Design` in integers."""

    def __init__(self, design: Design):
        self.design, self.hw = design, design.hardware
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

    def _swept(self, name: str) -> Array:
        return self.masters[name] >> self.hw.width

    def _run(self, pipeline: Pipeline, **inputs: Array) -> dict[str, Array]:
        return evaluate(pipeline, inputs, self.design.tables, self.hw.width, self.hw.segments)

    def drive(self, u: Array) -> Array:
        """(samples, inputs) data words -> (samples, rows of all kept drives)."""
        rows = [(first, self._block(name)) for name, first in self.design.kept_drives.items()]
        kept = np.zeros((len(u), max((first + b.rows for first, b in rows), default=0)), np.int64)
        for first, block in rows:
            acc = _dot(self._inputs(u, block.columns), self._swept(block.name).T)
            kept[:, first:first + block.rows] = self._kept(acc)
        return kept

    def _kept(self, acc: Array) -> Array:
        return arith.sat(arith.rnd(acc, self.hw.drive_shift), self.hw.width)

    def _inputs(self, u: Array, columns: int) -> Array:
        """Data words as operands, and the constant one beside them."""
        return np.concatenate([u << self.hw.input_shift, np.full((len(u), 1), self._one)], axis=1)[:, :columns]

    @property
    def _one(self) -> int:
        """The constant one beside the inputs."""
        return 1 << self.design.fractions["input"] + self.hw.input_shift

    def readout(self, q: Array, target: Array) -> tuple[Array, Array]:
        """Output words and cost derivatives."""
        return self._cost(self._pair(q), target)

    def _pair(self, q: Array, u: Array | None = None, exponent: Array | None = None) -> "Force":
        """The un-nudged copies of samples at a read-out; with exponents they accumulate gradients."""
        u = np.zeros((len(q), self.design.inputs), np.int64) if u is None else u
        drive = self.drive(u) if self.design.reads else np.zeros((len(q), 0), np.int64)
        contrast = None if exponent is None else self._contrast(exponent, np.ones((len(q), 1), np.int64))
        return Force(self, State(q, np.zeros_like(q)), u, drive, ("cost", 0), Outcome(), contrast=contrast)

    def _cost(self, pair: "Force", target: Array) -> tuple[Array, Array]:
        """Its outputs and cost derivatives."""
        w, place = self._swept("readout"), self.design.read_place
        pair.run(self.design.reads)
        x = pair.v[:, place:place + w.shape[1]]
        acc = _dot(x, w.T)
        pair.run(self.design.levels)
        out = self._run(self.hw.cost, acc=acc, target=target, drive=pair.kept)
        return out["y"], out.get("delta", out["y"])

    def nudge(self, pair: "Force", target: Array, exponent: Array) -> Array:
        """Scaled cost derivatives back at the units."""
        delta = self._cost(pair, target)[1]
        t = arith.sat(arith.rnd(delta << exponent[:, None], self.hw.delta_shift), self.hw.width)
        w = self._swept("readout")[:, :self.design.units]
        if self.design.backs:
            pair.rows[0] = t
            pair.run(self.design.backs)
            t, w = pair.rows[self.design.backs[-1].tile], self._swept("nudge")[0, 0]
            return arith.sat(arith.rnd(t * w, self.hw.nudge_shift), self.hw.width)
        return arith.sat(arith.rnd(_dot(t, w), self.hw.nudge_shift), self.hw.width)

    def _drift(self, p: Array, first: int, contrast: Callable[[Array], Array] | None) -> Array:
        """Changes of the positions of units from ``first`` on, of their momenta; with a ``contrast`` the gradients of
        masses are accumulated."""
        d, w = np.empty_like(p), self.hw.width
        for place in self.design.drifts:
            a, b = max(place.first, first), min(place.first + place.length, first + p.shape[1])
            if a < b:
                own, here = slice(a - place.first, b - place.first), slice(a - first, b - first)
                words = {f"k{i}": (v if len(v) == 1 else v[own]) >> w for i, v in enumerate(self.vectors)}
                found = self._run(self.hw.drift[place.kind], p=p[:, here], **words)
                d[:, here] = found["d"]
                if contrast is not None:
                    self._gather(found, contrast, (len(p), b - a))
        return d

    def _gather(self, found: dict[str, Array], contrast: Callable[[Array], Array], shape: tuple[int, int]) -> None:
        """Accumulate a pipeline's gradients of vector parameters."""
        for i, gradient in enumerate(self.vector_gradients):
            if f"g{i}" in found:
                g = contrast(np.broadcast_to(found[f"g{i}"], shape))
                gradient += g.sum(0) if len(gradient) == shape[1] else g.sum()

    def _contrast(self, exponent: Array, sign: Array) -> Callable[[Array], Array]:
        """Words at the scale of the gradient, with every copy's sign."""
        scale = exponent[:, None] - self.gain
        return lambda words: arith.shr(words, scale) * sign

    # -- motion ----------------------------------------------------------------------------------------------------

    def _move(self, s: State, force: Array | int, nudge: Array | int, reverse: bool, where: tuple, out: Outcome,
              units: slice = slice(None), drift: bool = True,
              contrast: Callable[[Array], Array] | None = None) -> None:
        """Kick and drift some units in place; a wrap is recorded with the place given."""
        p = arith.move(s.p[:, units], force, nudge, reverse)
        wrapped = arith.outside(p, self.hw.width)
        p = s.p[:, units] = arith.wrap(p, self.hw.width)
        if drift:
            d = self._drift(p, units.start or 0, contrast)
            q = s.q[:, units] - d if reverse else s.q[:, units] + d
            wrapped = wrapped | arith.outside(q, self.hw.width)
            s.q[:, units] = arith.wrap(q, self.hw.width)
        if wrapped.any() and not out.wrapped:
            sample, unit = np.argwhere(wrapped)[0]
            out.first = {"phase": where[0], "step": where[1], "sample": int(sample),
                         "unit": int(unit) + (units.start or 0)}
        out.wrapped |= bool(wrapped.any())

    def _advance(self, s: State, u: Array, drive: Array, step: int, out: Outcome) -> None:
        Force(self, s, u, drive, ("forward", step), out).run()

    def start(self, samples: int) -> State:
        shape = (samples, self.design.units)
        return State(np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    def forward(self, x: Array, read, out: Outcome) -> tuple[State, Array]:
        """All rows of (samples, steps, inputs); ``read(state, row)`` at every read-out point.

        Returns the state at the last one and the drive in force there."""
        d = self.design.dynamics
        s, c = self.start(len(x)), np.zeros((len(x), 0), np.int64)
        for row in range(d.steps):
            c = self.drive(x[:, row])
            for substep in range(d.substeps):
                if substep == d.substeps - 1:
                    read(s, row)
                    if row == d.steps - 1:
                        return s, c
                self._advance(s, x[:, row], c, row * d.substeps + substep + 1, out)
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

        s, c = self.forward(x, read, out)
        self._retrace(x, s, c, out, trace)
        return s, out

    def _retrace(self, x: Array, s: State, c: Array, out: Outcome, trace: list[State] | None = None) -> None:
        """The un-nudged copy, back from the last read-out point, in place."""
        d = self.design.dynamics
        self._move(s, 0, 0, True, ("return", d.steps * d.substeps), out)
        for step, row in self._steps_back():
            if step % d.substeps == 0:
                c = self.drive(x[:, row])
                if trace is not None:
                    trace.append(s.copy())
            Force(self, s, x[:, row], c, ("return", step), out, reverse=True).run()
        out.echo |= bool(s.q.any() or s.p.any())

    def _steps_back(self):
        """(step, row) of every step that the echo undoes: K-1 down to 1."""
        d = self.design.dynamics
        for step in range(d.steps * d.substeps - 1, 0, -1):
            yield step, (step - 1) // d.substeps

    def learn(self, x: Array, target: Array) -> tuple[Array, Outcome]:
        """Accumulate the gradient of (samples, steps, inputs) and (samples, read-outs, outputs) words.

        Returns the outputs of the free phase, as `predict`."""
        out, rows, leading = Outcome(), [], np.zeros(len(x), np.int64)

        def read(s: State, row: int) -> None:
            nonlocal leading
            if self._reads(row):
                y, delta = self.readout(s.q, target[:, len(rows)])
                rows.append(y)
                leading |= np.bitwise_or.reduce(arith.abs_bits(delta), axis=1)
                if not self.design.backs:
                    self._outer("readout", self._own(delta), s.q, 1 << self.design.fractions["state"])

        s, c = self.forward(x, read, out)
        exponent = arith.exponent(self.response, arith.msb(leading), self.gain, SHIFT_LIMIT)
        out.leading = int(np.bitwise_or.reduce(leading))
        self._echo(x, target, s, c, exponent, out)
        self._wrap_gradients()
        return np.stack(rows, axis=1), out

    def _echo(self, x: Array, target: Array, s: State, c: Array, exponent: Array, out: Outcome) -> None:
        """The un-nudged copy ``s`` and both nudged ones in lock-step, back from the last read-out point; the nudged
        ones are one batch, plus first, minus second."""
        d = self.design.dynamics
        last = d.steps * d.substeps
        both = State(np.tile(s.q, (2, 1)), np.tile(s.p, (2, 1)))
        contrast = self._contrast(np.tile(exponent, 2), np.repeat([1, -1], len(x))[:, None])
        self._move(both, 0, self._nudges(s, x[:, -1], target[:, -1], exponent), True, ("echo", last), out,
                   contrast=contrast)
        self._respond(both, out)
        self._move(s, 0, 0, True, ("return", last), out)
        for step, row in self._steps_back():
            nudge: Array | int = 0
            if step % d.substeps == 0:
                c = self.drive(x[:, row])
                if d.cost_at == "every":
                    nudge = self._nudges(s, x[:, row], target[:, row], exponent)
            Force(self, both, np.tile(x[:, row], (2, 1)), np.tile(c, (2, 1)), ("echo", step), out, reverse=True,
                  nudge=nudge, contrast=contrast).run()
            self._respond(both, out)
            Force(self, s, x[:, row], c, ("return", step), out, reverse=True).run()
        out.echo |= bool(s.q.any() or s.p.any())

    def _nudges(self, s: State, u: Array, target: Array, exponent: Array) -> Array:
        """Of both echoes, from the un-nudged copy's cost derivative."""
        nudge = self.nudge(self._pair(s.q, u, exponent), target, exponent)
        return np.concatenate([nudge, -nudge])

    def _own(self, delta: Array) -> Array:
        """Operand of the readout's own gradient."""
        return arith.sat(arith.rnd(delta << self.gain, self.hw.readout_shift), self.hw.width - 1)

    def _respond(self, both: State, out: Outcome) -> None:
        n = len(both.q) // 2
        out.response |= int(np.bitwise_or.reduce(arith.abs_bits(both.q[:n] - both.q[n:]), axis=None))

    def _outer(self, block: str, t: Array, x: Array, one: int = 0) -> None:
        if block in self.gradients:
            g = self.gradients[block]
            g[:, :x.shape[1]] += _dot(t.T, x)
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
            key = placement.key
            if key in rates:
                columns = slice(placement.column, placement.column + placement.columns)
                self.masters[placement.block][:, columns] = self._applied(
                    self.masters[placement.block][:, columns], self.gradients[placement.block][:, columns],
                    rates[key], out)
        for i in range(len(self.vectors)):
            if f"vector{i}" in rates:
                self.vectors[i] = self._applied(self.vectors[i], self.vector_gradients[i], rates[f"vector{i}"], out)
        m, coarse = rates["decay"]
        self.gradients = {name: self._decayed(g, m, coarse) for name, g in self.gradients.items()}
        self.vector_gradients = [self._decayed(g, m, coarse) for g in self.vector_gradients]
        return out

    def _applied(self, master: Array, gradient: Array, rate: tuple[int, int], out: Outcome) -> Array:
        summed = master + arith.update(self._product(gradient, rate[0]), self.hw.width, rate[1])
        out.saturated += int(np.count_nonzero(arith.outside(summed, 2 * self.hw.width)))
        return arith.sat(summed, 2 * self.hw.width)

    def _decayed(self, gradient: Array, mantissa: int, coarse: int) -> Array:
        left = arith.update(self._product(gradient, mantissa), self.hw.width, coarse)
        return arith.wrap(left, arith.gradient_width(self.hw.width))

    def _product(self, gradient: Array, mantissa: int) -> Array:
        return gradient * mantissa


class Force:
    """One evaluation of the force at a state: the design's sweeps, one after the other.

    Kicks and drifts ``s`` in place; with a ``contrast`` it accumulates gradients: in an echo of the + copies, which
    come first, and the - copies. ``nudge`` is applied where a state drifts."""

    def __init__(self, model: IntegerModel, s: State, u: Array, drive: Array, where: tuple, out: Outcome,
                 reverse: bool = False, nudge: Array | int = 0,
                 contrast: Callable[[Array], Array] | None = None):
        self.model, self.s, self.u, self.drive, self.where, self.out = model, s, u, drive, where, out
        self.reverse, self.nudge = reverse, nudge
        design = model.design
        self.v = np.zeros((len(s.q), design.elements), np.int64)
        self.v[:, :design.units] = s.q
        self.v[:, design.units] = 1 << design.fractions["state"]
        self.kept = drive
        self.rows: dict[int, Array] = {}  # by first tile
        self.contrast = contrast

    def run(self, sweeps: Sequence[Sweep] | None = None) -> None:
        for sweep in self.model.design.sweeps if sweeps is None else sweeps:
            if self.contrast is not None or not sweep.echo_only:
                {Opcode.FORWARD: self._forward, Opcode.OUTER: self._outer, Opcode.TRANSPOSED: self._transposed,
                 Opcode.UNITS: self._units}[Opcode(sweep.opcode)](sweep)

    def _x(self, sweep: Sweep) -> Array:
        """Column operands, (samples * walks, columns)."""
        columns = self.model.design.block(sweep.block).columns
        if sweep.input:
            return self.model._inputs(self.u, columns)
        first = sweep.first if sweep.gather else sweep.source
        return self._operand(first, columns * (sweep.repeat + 1), sweep.gather).reshape(-1, columns)

    def _t(self, sweep: Sweep, words: Array) -> Array:
        """Row operands, (samples * walks, rows): every walk's begin with a tile of their own."""
        rows = self.model.design.block(sweep.block).rows
        return words.reshape(len(words) * (sweep.repeat + 1), -1)[:, :rows]

    def _keep(self, sweep: Sweep, words: Array) -> None:
        words = arith.wrap(words, self.model.hw.width) if sweep.value else words
        if sweep.maximum:
            self.v[:, sweep.place] = words.max(axis=1)
        elif sweep.value:
            self.v[:, sweep.place:sweep.place + sweep.length] = words
        if sweep.rows:
            self.rows[sweep.tile] = words

    def _forward(self, sweep: Sweep) -> None:
        acc = _dot(self._x(sweep), self.model._swept(sweep.block).T).reshape(len(self.v), -1)
        if sweep.kept:
            self.kept = self.model._kept(acc)
            return
        drive = self.drive[:, sweep.drive:sweep.drive + sweep.length]
        self._keep(sweep, self.model._run(self.model.hw.activate[sweep.kind], acc=acc, drive=drive)["t"])

    def _outer(self, sweep: Sweep) -> None:
        self.model.gradients[sweep.block] += _dot(
            self._t(sweep, self.contrast(self.rows[sweep.tile])).T, self._x(sweep))

    def _transposed(self, sweep: Sweep) -> None:
        acc = _dot(self._t(sweep, self.rows[sweep.tile]), self.model._swept(sweep.block))
        self._element(sweep, acc.reshape(len(self.v), -1))

    def _units(self, sweep: Sweep) -> None:
        self._element(sweep, np.zeros((len(self.v), sweep.length), np.int64))

    def _element(self, sweep: Sweep, acc: Array) -> None:
        """A pass of the neuron unit."""
        model, n = self.model, sweep.length
        first = sweep.place if sweep.gather else sweep.first
        units = slice(first, first + n)
        kicks = sweep.opcode == Opcode.TRANSPOSED or sweep.force
        force: Array | int = 0
        if kicks or sweep.value or sweep.rows or sweep.learn:
            found = self._run(sweep, acc)
            force = found["force"]
            if sweep.learn and self.contrast is not None:
                model._gather(found, self.contrast, acc.shape)
        if sweep.value or sweep.rows:
            self._keep(sweep, force)
        elif not sweep.echo_only:
            nudge = self.nudge[:, units] if sweep.drift and isinstance(self.nudge, np.ndarray) else 0
            model._move(self.s, force if kicks else 0, nudge, self.reverse, self.where, self.out, units, sweep.drift,
                        self.contrast)

    def _run(self, sweep: Sweep, acc: Array) -> dict[str, Array]:
        n, w = sweep.length, self.model.hw.width
        words = {f"k{i}": np.broadcast_to((v >> w)[:n], acc.shape) for i, v in enumerate(self.model.vectors)
                 if len(v) in (1, n)}
        found = self.model._run(self.model.hw.step[sweep.kind], acc=acc, q=self._operand(sweep.first, n, sweep.gather),
                                r=self._operand(sweep.second, n, sweep.gather_second), **words)
        return {name: np.broadcast_to(value, acc.shape) for name, value in found.items()}

    def _operand(self, first: int, length: int, gather: bool) -> Array:
        return self.v[:, self.model.index[first:first + length] if gather else slice(first, first + length)]
