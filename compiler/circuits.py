"""Passes become circuits: formats of every vector, one element-wise pipeline per pass, sweeps with their places."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from echolith.compiler.alike import Alike
from echolith.compiler.errors import CompileError
from echolith.compiler.formats import fraction
from echolith.compiler.ir import Expr, var
from echolith.compiler.isa import KIND_BITS, STEP_BITS, Opcode
from echolith.compiler.lower import Fixed, Lowering
from echolith.compiler.pipeline import Builder, Pipeline
from echolith.compiler.resolution import Output, furthest, inaccuracy, spread
from echolith.compiler.select import Pass
from echolith.compiler.steps import DELTA, FINE, ONE, Flow
from echolith.compiler.sweep import Sweep

__all__ = ["Circuits", "circuits"]

_ACTIVATIONS, _STEPS = 1 << KIND_BITS, 1 << STEP_BITS  # pipelines of one unit
_WILD = 16.0, 8.0  # times what was seen: room of contrasts, which would wrap beyond, and of what follows from them
_FEW, _SOME = 16, 32  # for which formats give way so that passes of one form share theirs; beyond, the fewest there are


@dataclass
class Circuits:
    """What the passes need of the hardware, and the sweeps that use it."""

    activate: list[Pipeline] = field(default_factory=list)
    step: list[Pipeline] = field(default_factory=list)
    tables: dict[str, list[np.ndarray]] = field(default_factory=lambda: {"activate": [], "step": []})
    sweeps: list[Sweep] = field(default_factory=list)
    reads: list[Sweep] = field(default_factory=list)  # before a read-out, where it needs more than its block
    backs: list[Sweep] = field(default_factory=list)  # behind its cost
    levels: list[Sweep] = field(default_factory=list)  # of passes before the cost
    feeds: list[Sweep] = field(default_factory=list)  # of a stack: what its layers are fed
    copies: list[Sweep] = field(default_factory=list)  # the same for an echo
    errors: list[Sweep] = field(default_factory=list)  # from their errors to gradients and nudges
    fractions: dict[str, int] = field(default_factory=dict)  # of every vector and of the sums' words
    gradients: dict[str, int] = field(default_factory=dict)  # of the contributions to each vector parameter
    lowered: dict[str, tuple[int, ...]] = field(default_factory=dict)
    elements: int = 0  # of a context's vectors
    tiles: int = 0
    drives: int = 0  # rows of the drive memory
    index: list[int] = field(default_factory=list)  # contents of the index memory


@dataclass(frozen=True)
class _Circuit:
    """A pipeline, how it came about, what its outputs stand for and what its inputs are (see `inaccuracy`)."""

    pipeline: Pipeline
    low: Lowering
    wanted: dict[str, Output]
    operands: dict[str, tuple[str, int]]


def circuits(passes: Sequence[Pass], flow: Flow, states: Mapping[str, int], blocks: Mapping[str, str],
             fractions: Mapping[str, int], values: Mapping[str, np.ndarray], vectors: tuple[str, ...], *, width: int,
             segments: int, accumulator: int, lanes: int, given: Mapping[str, tuple[int, ...]],
             finest: Mapping[str, int] = MappingProxyType({}), narrow: Sequence[Pass] = ()) -> Circuits:
    """Lower all passes; row operands of ``narrow`` ones have negatives, vectors no more fraction bits than ``finest``
    says.

    ``blocks`` names the block of every matrix and drive, ``fractions`` holds the formats of states, blocks, drives and
    vector parameters, ``values`` calibrated samples of every vector and parameter by name."""
    most, left, enough = 0, 0, None
    for apart in (0, 1, 2, 4, 8, 99):  # bits by which formats may be coarser than their ranges need
        lower = _Lower(passes, flow, states, blocks, fractions, values, vectors, width, segments, accumulator, lanes,
                       given, apart, finest, narrow)
        found = lower.run()
        most, left = max((len(found.activate), _ACTIVATIONS), (len(found.step), _STEPS), key=lambda n: n[0] / n[1])
        if max(len(found.activate), len(found.step)) <= _FEW:
            return found
        if most <= left and (enough is None or len(enough.step) > max(_SOME, len(found.step))):
            enough = found
    if enough is None:
        raise CompileError(f"energy: must need at most {left} element-wise circuits; use fewer different functions in "
                           f"energy, read-out and cost, or one vector for terms of the same form, not {most}")
    return enough


class _Lower:
    def __init__(self, passes, flow, states, blocks, fractions, values, vectors, width, segments, accumulator, lanes,
                 given, apart, finest, narrow):
        self.flow, self.blocks, self.values, self.finest = flow, blocks, values, finest
        self.vectors, self.given = vectors, given
        self.samples = values  # of the pass that is lowered
        self.width, self.segments, self.accumulator, self.lanes = width, segments, accumulator, lanes
        self.found, self.passes = Circuits(fractions=dict(fractions)), passes
        self.narrow = {made.result for made in narrow if made.rows}
        self.wild = {made.result for made in narrow}
        self.passes = [self._spaced(made) if made.rows else made for made in passes]
        self.places = self._layout(states)
        self.tiles = self._row_operands()
        self.drives: dict[str, int] = {}
        self.contents: dict[str, list[tuple]] = {"activate": [], "step": []}  # of all kinds so far
        self.indexed: dict[tuple[int, ...], int] = {}  # elements -> their place in the index memory
        self.alike: Alike | None = None
        if apart:
            free = {p.acc for p in passes
                    if p.opcode == Opcode.FORWARD and not p.drive and not p.acc.startswith("softmax")}
            fixed = {name: frac for name, frac in fractions.items() if name not in free}
            self.alike = Alike(self.passes, values, fixed, blocks,
                               lambda n: fractions[n] if n in fractions else self._own(n), apart)
            self.found.fractions |= {name: self.alike.shared(name) for name in sorted(free)}

    def run(self) -> Circuits:
        for made in self.passes:
            if made.opcode == Opcode.OUTER:
                self._outer(made)
            elif made.opcode == Opcode.FORWARD:
                self._forward(made)
            else:
                self._element(made)
        return self.found

    # -- places ----------------------------------------------------------------------------------------------------

    def _layout(self, states: Mapping[str, int]) -> dict[str, int]:
        """States, the constant one, then every vector that is kept."""
        places, end = {"u": 0}, 0
        for name, units in states.items():
            places[name] = end
            end += units
        places[ONE] = end
        end += 1
        for made in self.passes:
            if made.value and made.result not in places:
                places[made.result] = end
                end += self.flow.lengths[made.result]
        places |= {made.q: places[made.parts[0]] for made in self.passes if made.parts}
        self.zero = end
        if any(-1 in g.of for made in self.passes for g in made.gathers):
            end += 1
        self.found.elements = end
        return places

    def _place(self, made: Pass, operand: str) -> tuple[int, bool]:
        """First element of a pass's operand, or its place in the index memory and True."""
        gather = next((g for g in made.gathers if g.name == operand), None)
        if gather is None:
            return self.places.get(operand, 0), False
        first = self.places[gather.x]
        elements = tuple(first + i if i >= 0 else self.zero for i in gather.of)
        if elements not in self.indexed:
            self.indexed[elements] = len(self.found.index)
            self.found.index += elements
        return self.indexed[elements], True

    def _row_operands(self) -> dict[str, int]:
        tiles, end = {}, 0
        if DELTA in {made.x for made in self.passes}:
            tiles[DELTA], end = 0, -(-self.flow.lengths[DELTA] // self.lanes)
        for made in self.passes:
            if made.rows and made.result not in tiles:
                tiles[made.result] = end
                rows, positions = self._pieces(made)
                end += -(-rows // self.lanes) * positions
        self.found.tiles = end
        return tiles

    def _pieces(self, made: Pass) -> tuple[int, int]:
        """Elements of each piece of a pass's row operands, and pieces: each starts with a tile of its own."""
        positions = next((p.positions for p in self.passes if made.result in (p.x, p.t)
                          and p.opcode in (Opcode.TRANSPOSED, Opcode.OUTER)), 1)
        return self.flow.lengths[made.result] // positions, positions

    def _spaced(self, made: Pass) -> Pass:
        """With zeros up to the end of each piece's last tile."""
        rows, positions = self._pieces(made)
        idle = -rows % self.lanes
        if not made.rows or positions == 1 or not idle:
            return made
        (gather,) = made.gathers
        of = tuple(i for p in range(positions) for i in (*gather.of[p * rows:(p + 1) * rows], *[-1] * idle))
        return replace(made, length=len(of), gathers=(replace(gather, length=len(of), of=of),))

    def _drive(self, name: str) -> int:
        """First row of a drive that is kept over the substeps."""
        if not name:
            return 0
        if name not in self.drives:
            self.drives[name] = self.found.drives
            self.found.drives += -(-self.flow.lengths[name] // self.lanes) * self.lanes
        return self.drives[name]

    # -- sweeps ----------------------------------------------------------------------------------------------------

    def _outer(self, made: Pass) -> None:
        self.found.sweeps.append(Sweep(
            Opcode.OUTER, made.length, self.blocks[made.matrix], **self._columns(made),
            tile=self.tiles[made.t], repeat=made.positions - 1, echo_only=True))

    def _columns(self, made: Pass) -> dict:
        """Where the column operand is."""
        place, gather = self._place(made, made.x)
        return {"first" if gather else "source": place, "gather": gather, "input": made.x == "u"}

    def _sum_fraction(self, made: Pass) -> int:
        return self.found.fractions[self.blocks[made.matrix]] + self.found.fractions[made.source(made.x)]

    def _forward(self, made: Pass) -> None:
        kind = 0 if made.kept else self._kind("activate", made, functools.partial(self._activate, made))
        self.found.sweeps.append(Sweep(
            Opcode.FORWARD, made.length, self.blocks[made.matrix], kind, **self._columns(made),
            place=self.places.get(made.result, 0) if made.value else 0,
            tile=self.tiles[made.result] if made.rows else 0, drive=self._drive(made.acc if made.kept else made.drive),
            value=made.value, rows=made.rows, repeat=made.positions - 1, kept=made.kept))

    def _element(self, made: Pass) -> None:
        transposed = made.opcode == Opcode.TRANSPOSED
        kind = 0
        if made.expr is not None or made.learn:
            kind = self._kind("step", made, functools.partial(self._step, made))
        kicks = bool(made.state) and made.expr is not None
        (first, gather), (second, gather_second) = self._place(made, made.q or made.state), self._place(made, made.r)
        self.found.sweeps.append(Sweep(
            made.opcode, made.length, self.blocks[made.matrix] if transposed else "", kind,
            first=first, second=second, gather=gather, gather_second=gather_second,
            place=self.places[made.result] if made.value else self.places[made.state] if made.state and gather else 0,
            tile=self.tiles[made.x] if transposed else self.tiles[made.result] if made.rows else 0,
            value=made.value, rows=made.rows, maximum=made.maximum, contrast=made.contrast,
            force=kicks and not transposed, drift=made.drift,
            repeat=made.positions - 1, learn=bool(made.learn), echo_only=made.echo_only))

    # -- pipelines -------------------------------------------------------------------------------------------------

    def _kind(self, unit: str, made: Pass, make: Callable[[str, float], "_Circuit"]) -> int:
        """Number of the circuit, equal ones merged. Its words reach as far as its precision allows."""
        name = f"{unit}{len(self.found.sweeps)}"
        self.samples = self.alike.samples(made) if self.alike else self.values
        circuit = make(name, self._reach(unit, name, make))
        kinds: list[Pipeline] = getattr(self.found, unit)
        self.found.lowered[name] = tuple(circuit.low.formats)
        same = self._contents(unit, circuit)
        if same in self.contents[unit]:
            return self.contents[unit].index(same)
        self.contents[unit].append(same)
        self.found.tables[unit] += circuit.low.tables
        kinds.append(circuit.pipeline)
        return len(kinds) - 1

    def _contents(self, unit: str, circuit: "_Circuit") -> tuple:
        """A pipeline with its tables by their words; of two that add alike one is enough where they are short."""
        first = len(self.found.tables[unit])
        ops = tuple(replace(op, n=op.n - first) if op.kind == "table" else op for op in circuit.pipeline.ops)
        if self.alike is not None:
            ops = tuple(replace(op, args=tuple(sorted(op.args))) if op.kind in ("add", "mul") else op for op in ops)
        return replace(circuit.pipeline, ops=ops), tuple(t.tobytes() for t in circuit.low.tables)

    def _reach(self, unit: str, name: str, make: Callable[[str, float], "_Circuit"]) -> float:
        """The furthest reach that is precise enough; given formats leave no choice."""
        before = dict(self.found.fractions), dict(self.found.gradients)

        def error(reach: float) -> float:
            made = make(name, reach)
            self.found.fractions, self.found.gradients = dict(before[0]), dict(before[1])
            return inaccuracy(made.pipeline, made.wanted, [*self.found.tables[unit], *made.low.tables], made.operands,
                              self.samples, self.width, self.segments)

        return np.inf if name in self.given else furthest(error)

    def _activate(self, made: Pass, name: str, reach: float) -> "_Circuit":
        f = self.found.fractions
        b = Builder(("acc", self.accumulator), *[("drive", self.width)] * bool(made.drive), even=bool(self.wild))
        frac = self._sum_fraction(made)
        z = b("rnd", b.input("acc"), n=frac - f[made.acc])
        if made.drive:
            z = b("add", z, b.input("drive"))
        z = b("sat", z, n=self.width)
        low = self._lowering(name, b, {made.acc: Fixed(z, f[made.acc], True)}, "activate", reach)
        pipeline = b.build(t=self._word(low, made))
        return _Circuit(pipeline, low, {"t": self._output(made)}, {"acc": (made.acc, frac)})

    def _step(self, made: Pass, name: str, reach: float) -> "_Circuit":
        f = self.found.fractions
        read = {n for e in (made.expr, *(e for _, e in made.learn)) if e is not None for n in e.variables()}
        operands = {"acc": (made.acc, self._sum_fraction(made))} if made.acc else {}
        operands |= {n: (vector, f[made.source(vector)]) for n, vector in (("q", made.q), ("r", made.r)) if vector}
        operands |= {f"k{i}": (v, f[f"vector{i}"]) for i, v in enumerate(self.vectors) if v in read}
        names = {*operands, "q"}
        b = Builder(*((n, self.accumulator if n == "acc" else self.width)
                      for n in ("acc", "q", "r", *(f"k{i}" for i in range(len(self.vectors)))) if n in names),
                    even=bool(self.wild))
        leaves = {v: Fixed(b.input(n), frac, n != "acc") for n, (v, frac) in operands.items()}
        low = self._lowering(name, b, leaves, "step", reach)
        outputs = {"force": self._force(low, made)}
        for parameter, expr in made.learn:
            self._contribution(low, parameter, expr, outputs)
        return _Circuit(b.build(**outputs), low, self._outputs(made), operands)

    def _output(self, made: Pass) -> Output:
        """Of the vector that a pass makes, or of its kick."""
        assert made.expr is not None
        frac = self.found.fractions[made.result or "state"]
        rounded = (made.value and not made.contrast) or not made.result
        return Output((made.expr,), frac, 2.0**-frac if rounded else 0.0, made.rows)

    def _outputs(self, made: Pass) -> dict[str, Output]:
        wanted = {"force": self._output(made)} if made.result or made.state else {}
        for parameter, _ in made.learn:
            exprs = tuple(e for name, e in made.learn if name == parameter)
            wanted[f"g{self.vectors.index(parameter)}"] = Output(exprs, self.found.gradients[parameter], 0.0)
        return wanted

    def _force(self, low: Lowering, made: Pass) -> int:
        """A kick in the format of the states, or a word."""
        assert made.expr is not None
        if made.result:
            return self._word(low, made)
        value = low(made.expr)
        return low.b("rnd", value.node, n=value.frac - self.found.fractions["state"])

    def _word(self, low: Lowering, made: Pass) -> int:
        """The result as a word; its format is chosen here unless it is known."""
        assert made.expr is not None
        f, narrow = self.found.fractions, made.result in self.narrow
        if made.contrast:
            return self._contrast(low, made)
        if made.value:
            frac = f.setdefault(made.result, self._vector_fraction(made))
            value = low(made.expr)
            if self.alike is not None and value.word and value.frac == frac:
                return value.node  # as all copies are
            return low.b("sat", low.b("rnd", value.node, n=value.frac - frac), n=self.width)
        value = low.word(made.expr)
        growth = self._growth(made.result, value.frac) if narrow and made.result.endswith(FINE) else 0
        word = low.b("rnd", value.node, n=value.frac - f.setdefault(made.result, value.frac - growth))
        return low.b("sat", word, n=self.width - 1) if narrow else word

    def _contrast(self, low: Lowering, made: Pass) -> int:
        """One slot's part of a difference, in the difference's format: what words have above that wraps away."""
        assert made.expr is not None
        value, largest = low(made.expr), float(np.abs(self.values[made.result]).max(initial=0.0))
        frac = self.found.fractions.setdefault(made.result, min(fraction(largest, self.width, _WILD[0]), value.frac))
        return low.b("rnd", value.node, n=value.frac - frac)

    def _growth(self, name: str, frac: int) -> int:
        """Bits that row operands of gradients give up, so that they have four above what was seen."""
        largest = float(np.abs(self.values[name]).max(initial=2.0**-30))
        return min(2, max(0, 4 - (self.width - 1 - int(np.ceil(np.log2(largest * 2.0**frac))))))

    def _vector_fraction(self, made: Pass) -> int:
        """What its range needs; a sum that is kept as it is needs no more range than it has."""
        if self.alike is not None:
            return self.alike.shared(made.result)
        own = self._own(made.result)
        kept = made.opcode == Opcode.FORWARD and made.expr == var(made.acc)
        return max(own, self.found.fractions[made.acc]) if kept else own

    def _own(self, name: str) -> int:
        """The format that a vector's range needs."""
        largest = float(np.abs(self.values[name]).max(initial=0.0))
        margin = _WILD[1] if name in self.wild else 4.0
        return min(fraction(largest, self.width, margin), self.finest.get(name, 2 * self.width))

    def _contribution(self, low: Lowering, parameter: str, expr: Expr, outputs: dict[str, int]) -> None:
        output = f"g{self.vectors.index(parameter)}"
        value = low.wide(expr)
        frac = self.found.gradients.setdefault(parameter, value.frac)
        node = low.b("rnd", value.node, n=value.frac - frac)
        if output in outputs:
            node = low.b("add", outputs[output], node)
        outputs[output] = low.b("sat", node, n=2 * self.width - 1)

    def _lowering(self, name: str, b: Builder, leaves: dict[str, Fixed], unit: str, reach: float) -> Lowering:
        stretched = {v: spread(self.samples[v], x.frac, self.width, reach) if x.word and v not in self.vectors
                     else self.samples[v] for v, x in leaves.items()}
        return Lowering(b, self.width, self.segments, leaves, stretched, len(self.found.tables[unit]),
                        self.given.get(name, ()))
