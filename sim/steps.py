"""A step of all copies as one function of C: some samples at a time pass through every sweep, held by the caches.

For forces that are `plain`. `force.Force` says what a step is.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.isa import Opcode
from echolith.compiler.pipeline import Pipeline
from echolith.compiler.sweep import Sweep
from echolith.sim.arrays import EXACT
from echolith.sim.force import Force
from echolith.sim.products import place

__all__ = ["Circuits", "Loop", "Step", "plain"]

Array = np.ndarray


class Loop(Protocol):
    """A `terms.function`: what it takes and gives in the order of its arguments, and its tables."""

    name: str
    arrays: Sequence[str]
    slots: Sequence[int]


@dataclass(frozen=True)
class Circuits:
    """The functions that a step calls."""

    run: Mapping[int, Loop]  # by id of the pipeline
    kick: Mapping[tuple[int, bool], Loop]  # and whether it goes back
    drift: Mapping[tuple[int, bool], Loop]
    push: Sequence[Loop]
    scaled: Loop
    summed: Loop
    wrapped: Loop
    narrowed: Loop | None


def plain(design: Design) -> bool:
    """Whether `Step` knows all that a step of the design does."""
    return all(map(_plain, design.sweeps)) and all(
        _of(p, {"p", "k"}, "d") for p in design.hardware.drift) and all(_circuit(design, s) for s in design.sweeps)


def _plain(sweep: Sweep) -> bool:
    moved = sweep.gather or sweep.gather_second or sweep.repeat or sweep.value or sweep.maximum or sweep.kept
    opcode = Opcode(sweep.opcode)
    if opcode == Opcode.FORWARD:
        return not (moved or sweep.input)
    return not moved and (opcode == Opcode.OUTER or not (sweep.rows or sweep.echo_only)
                          and (_forced(sweep) or not sweep.learn))


def _forced(sweep: Sweep) -> bool:
    """Whether a pass of the neuron unit kicks by its circuit."""
    return sweep.opcode == Opcode.TRANSPOSED or sweep.force


def _circuit(design: Design, sweep: Sweep) -> bool:
    if sweep.opcode == Opcode.OUTER:
        return True
    if sweep.opcode == Opcode.FORWARD:
        return _of(design.hardware.activate[sweep.kind], {"acc", "drive"}, "t")
    return _of(design.hardware.step[sweep.kind], {"acc", "q", "r", "k"}, "force")


def _of(pipeline: Pipeline, inputs: set[str], output: str) -> bool:
    """Vectors count as k; their gradients may be there too."""
    taken = {"k" if name[0] == "k" else name for name, _ in pipeline.inputs}
    return taken <= inputs and {name for name, _ in pipeline.outputs if name[0] != "g"} == {output}


class Step:
    """Forward or ``back``. ``text`` is the function ``name``; once the library is there, `bind` it."""

    def __init__(self, design: Design, circuits: Circuits, back: bool, name: str, tables: Mapping[int, int]):
        self._design, self._circuits, self._back, self.name = design, circuits, back, name
        self._given: dict[str, Callable[[Force], int]] = {}  # arguments, by their text in C
        self._before: list[str] = []
        self._after: list[str] = []
        self._lines: list[str] = []
        self._columns: dict[tuple[int, int, bool], str] = {}  # operands that are still those of the state
        self._rows: dict[int, str] = {}  # row operands by their tile
        self._kicks = 0  # so far, with the drifts behind them
        self._call: Any = None
        self._still = np.zeros(design.units, np.int64)
        self._left = np.zeros((0, 0, 0), np.int64)  # where words wrapped, by kick; zeros between steps
        for slot, address in tables.items():
            self._argument(f"const int64_t* const table{slot} = (const int64_t*)", lambda force, a=address: a)
        self._fixed()
        for sweep in design.sweeps:
            {Opcode.FORWARD: self._forward, Opcode.OUTER: self._outer, Opcode.TRANSPOSED: self._transposed,
             Opcode.UNITS: self._units}[Opcode(sweep.opcode)](sweep)
        self.text = self._text()

    # -- the text --------------------------------------------------------------------------------------------------

    def _argument(self, code: str, value: Callable[[Force], int]) -> None:
        self._given.setdefault(code, value)

    def _fixed(self) -> None:
        for name, value in {
            "samples": lambda f: len(f.row.drives), "rows": lambda f: len(f.v),
            "counted": lambda f: 0 if f.contrast is None else len(f.contrast), "v_stride": lambda f: place(f.v)[1],
            "p_stride": lambda f: place(f.s.p)[1], "drive_stride": lambda f: place(f.row.drives)[1],
            "nudge_stride": lambda f: place(self._nudge(f))[1],
        }.items():
            self._argument(f"const long {name} = ", value)
        for name, value in {
            "v": lambda f: place(f.v)[0], "p": lambda f: place(f.s.p)[0], "drive": lambda f: place(f.row.drives)[0],
            "nudge": lambda f: place(self._nudge(f))[0], "left": lambda f: place(self._left)[0],
            "scale": lambda f: 0 if f.contrast is None else place(f.contrast.scale)[0],
            "sign": lambda f: 0 if f.contrast is None else place(f.contrast.sign)[0],
        }.items():
            self._argument(f"int64_t* const {name} = (int64_t*)", value)

    def _nudge(self, force: Force) -> Array:
        return force.nudge if isinstance(force.nudge, np.ndarray) else self._still

    def _text(self) -> str:
        arguments = [f"{code}given[{i}];" for i, code in enumerate(self._given)]
        return "\n".join([
            f'extern "C" int64_t {self.name}(const int64_t* given) {{', *arguments, *dict.fromkeys(self._before),
            "int64_t found = 0;",
            "for (long first = 0; first < rows; first += samples)",
            "for (long i = 0; i < samples; i += kSome) {",
            "const long at = first + i, some = samples - i < kSome ? samples - i : kSome;",
            "const long learned = counted > at + some ? some : counted > at ? counted - at : 0;",
            *self._lines, "}", *self._after, "return found;", "}", ""])

    def _run(self, loop: Loop, count: str, columns: int, **arrays: str) -> str:
        """``arrays``: pointer and stride by name."""
        given = [arrays[name] for name in loop.arrays] + [f"table{slot}" for slot in loop.slots]
        return f"{loop.name}({count}, {columns}, {', '.join(given)})"

    def _x(self, first: int, columns: int, summed: bool) -> str:
        """Name of the column operands."""
        narrowed = summed and self._design.hardware.packed is not None
        key = first, columns, narrowed
        if key not in self._columns:
            name = self._columns[key] = f"x{first}_{columns}" + "n" * narrowed
            self._before.append(f"Words<double> {name}(kSome, {columns});")
            if narrowed:
                self._lines.append(self._narrow(self._x(first, columns, False), name, columns))
            else:
                self._lines.append(f"{name}.copied(v + at * v_stride + {first}, v_stride, some);")
        return self._columns[key]

    def _narrow(self, source: str, to: str, columns: int) -> str:
        assert self._circuits.narrowed is not None
        return self._run(self._circuits.narrowed, "some", columns, x=_matrix(source), y=_matrix(to)) + ";"

    def _factor(self, block: str, transposed: bool) -> str:
        """Name of a block's weights."""
        b, name = self._design.block(block), f"{block}_{'across' if transposed else 'down'}"
        depth, columns = (b.columns, b.rows) if transposed else (b.rows, b.columns)
        self._argument(f"const double* const {name}_words = (const double*)",
                       lambda force: place(force.model.operand(block, transposed))[0])
        self._before.append(f"const Factor {name}(kSome, {columns}, {depth}, {name}_words, {columns});")
        return name

    def _forward(self, sweep: Sweep) -> None:
        block = self._design.block(sweep.block)
        x, w = self._x(sweep.source, block.columns, True), self._factor(sweep.block, True)
        t = self._rows[sweep.tile] = f"t{sweep.tile}_{block.rows}"
        self._before += [f"Words<double> {t}(kSome, {block.rows}), {t}_scaled(kSome, {block.rows});"]
        loop = self._circuits.run[id(self._design.hardware.activate[sweep.kind])]
        drive = f"drive + i * drive_stride + {sweep.drive}, drive_stride"
        scaled = self._run(self._circuits.scaled, "learned", block.rows, x=_matrix(t), scale="scale + at, 1",
                           sign="sign + at, 1", y=_matrix(f"{t}_scaled"))
        self._lines += [f"{w}.multiplied({_left(x)}, some);",
                        self._run(loop, "some", block.rows, acc=_matrix(w, "sums"), t=_matrix(t), drive=drive) + ";",
                        f"if (learned) {scaled};"]

    def _outer(self, sweep: Sweep) -> None:
        block, t = self._design.block(sweep.block), f"{self._rows[sweep.tile]}_scaled"
        if sweep.input:
            x = f"u{block.columns}"
            self._argument(f"const double* const {x}_words = (const double*)",
                           lambda force: place(force.row.inputs(block.columns, False))[0])
            self._before.append(f"Words<double> {x}(kSome, {block.columns});")
            self._lines.append(f"if (learned) {x}.copied({x}_words + i * {block.columns}, {block.columns}, learned);")
        else:
            x = self._x(sweep.source, block.columns, False)
        g = f"g_{sweep.block}"
        self._argument(f"int64_t* const {g}_words = (int64_t*)",
                       lambda force: place(force.model.gradients[sweep.block])[0])
        if f"if (counted) {g}.add({g}_words, false);" not in self._after:
            self._before.append(f"Words<double> {g}({block.rows}, {block.columns});")
            self._after.append(f"if (counted) {g}.add({g}_words, false);")
        self._lines.append(f"if (learned) multiply({{{t}.words, 1, {t}.stride}}, {x}.words, {x}.stride, {block.rows}, "
                           f"{x}.stride, learned, {{{g}.words, {g}.stride}}, true);")

    def _transposed(self, sweep: Sweep) -> None:
        block, w, t = self._design.block(sweep.block), self._factor(sweep.block, False), self._rows[sweep.tile]
        if self._design.hardware.packed is not None:
            self._before.append(f"Words<double> {t}_narrow(kSome, {block.rows});")
            self._lines.append(self._narrow(t, f"{t}_narrow", block.rows))
            t += "_narrow"
        self._lines.append(f"{w}.multiplied({_left(t)}, some);")
        self._kick(sweep, _matrix(w, "sums"))

    def _units(self, sweep: Sweep) -> None:
        self._before.append(f"const Words<double> none(1, {self._design.units});")
        self._kick(sweep, "none.words, 0")

    def _kick(self, sweep: Sweep, acc: str) -> None:
        self._kicks += 1
        nudge = f"nudge + at * nudge_stride + {sweep.first}, nudge_stride"
        if not sweep.drift:
            self._argument("const int64_t* const still = (const int64_t*)", lambda force: place(self._still)[0])
            nudge = "still, 0"
        pipeline = self._design.hardware.step[sweep.kind]
        loop = self._circuits.kick[id(pipeline), self._back] if _forced(sweep) else self._circuits.push[self._back]
        n = sweep.length
        arrays = {"acc": acc, "nudge": nudge, "p": _state("p", sweep.first), "q": _state("v", sweep.first),
                  "r": _state("v", sweep.second)}
        self._motion(loop, arrays, "p", sweep.first, n, sweep.learn)
        for drift in self._design.drifts if sweep.drift else ():
            a, b = max(drift.first, sweep.first), min(drift.first + drift.length, sweep.first + n)
            if a < b:
                loop = self._circuits.drift[id(self._design.hardware.drift[drift.kind]), self._back]
                arrays = {"p": _state("p", a), "q": _state("v", a)}
                self._motion(loop, arrays, "v", a, b - a, True, drift.length, a - drift.first)
        self._columns.clear()

    def _vector(self, i: int, length: int, first: int) -> str:
        """A vector of the neuron unit, one word per unit, from one of them on."""
        name = f"k{i}_{length}"
        kept: list[Array] = []

        def value(force: Force) -> int:
            kept[:] = [np.resize(force.model.vectors[i] >> force.model.hw.width, length)]  # until the next step
            return place(kept[0])[0]

        self._argument(f"int64_t* const {name} = (int64_t*)", value)
        return f"{name} + {first}, 0"

    def _motion(self, loop: Loop, arrays: dict[str, str], of: str, first: int, n: int, learns: bool,
                length: int | None = None, own: int = 0) -> None:
        """``n`` words of ``of`` from ``first`` on, which are those from ``own`` on of vectors of that length."""
        arrays |= {k: self._vector(int(k[1:]), length or n, own) for k in loop.arrays if k[0] == "k"}
        gradients = {g: f"{loop.name}_{self._kicks}_{first}_{g}" for g in loop.arrays if g[0] == "g"}
        self._before += [f"Words<int64_t> {g}(kSome, {n});" for g in gradients.values()]
        call = self._run(loop, "some", n, **arrays, **{g: _matrix(name) for g, name in gradients.items()})
        wrap = self._run(self._circuits.wrapped, "some", n, w=_state(of, first),
                         left=f"left + ({self._kicks - 1} * rows + at) * {self._design.units} + {first}, "
                              f"{self._design.units}")
        self._lines.append(f"if ({call}) {{ {wrap}; found = 1; }}")
        for g, name in gradients.items() if learns else ():
            self._learn(int(g[1:]), name, n)

    def _learn(self, i: int, name: str, n: int) -> None:
        """Sum up what moves a vector."""
        self._argument(f"int64_t* const vector{i} = (int64_t*)",
                       lambda force: place(force.model.vector_gradients[i])[0])
        self._before.append(f"Words<int64_t> {name}_sum(1, {n});")
        call = self._run(self._circuits.summed, "learned", n, x=_matrix(name), scale="scale + at, 1",
                         sign="sign + at, 1", sum=f"{name}_sum.words, 0")
        self._lines.append(f"if (learned) {call};")
        one = self._design.vectors[i].length != n
        self._after.append(f"if (counted) {name}_sum.add(vector{i}, {int(one)});")

    # -- a call ----------------------------------------------------------------------------------------------------

    def bind(self, call: Any) -> None:
        """To the function of the library."""
        self._call = call

    def __call__(self, force: Force) -> bool:
        """Move; false if sums may not be exact, and nothing has moved."""
        design = self._design
        longest = max([len(force.v) * len(design.sweeps), *(max(b.rows, b.columns) for b in design.blocks)])
        if longest << 2 * (design.hardware.width - 1) >= 1 << EXACT:
            return False
        shape = self._kicks, len(force.v), design.units
        if self._left.shape != shape:
            self._left = np.zeros(shape, np.int64)
        given = array("q", [value(force) for value in self._given.values()])
        found = self._call(given.buffer_info()[0])
        if found:
            left, self._left = self._left, np.zeros(shape, np.int64)
            for kick in left:
                if kick.any():
                    force.record([(0, kick != 0)])
        return True


def _matrix(name: str, words: str = "words") -> str:
    return f"{name}.{words}, {name}.stride"


def _left(name: str) -> str:
    return f"{{{name}.words, {name}.stride, 1}}"


def _state(name: str, first: int) -> str:
    return f"{name} + at * {name}_stride + {first}, {name}_stride"
