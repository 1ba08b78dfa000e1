"""Passes become circuits: formats of every vector, one element-wise pipeline per pass, sweeps with their places."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from echolith.compiler.errors import CompileError
from echolith.compiler.flow import Flow
from echolith.compiler.formats import fraction
from echolith.compiler.ir import Expr
from echolith.compiler.isa import Opcode
from echolith.compiler.lower import Fixed, Lowering
from echolith.compiler.pipeline import Builder, Pipeline
from echolith.compiler.select import Pass
from echolith.compiler.sweep import Sweep

__all__ = ["STRETCH", "Circuits", "circuits", "spread"]

STRETCH = 0.75  # of a format that calibrated samples are tried over
_KINDS = 16  # pipelines of one unit


@dataclass
class Circuits:
    """What the passes need of the hardware, and the sweeps that use it."""

    activate: list[Pipeline] = field(default_factory=list)
    step: list[Pipeline] = field(default_factory=list)
    tables: dict[str, list[np.ndarray]] = field(default_factory=lambda: {"activate": [], "step": []})
    sweeps: list[Sweep] = field(default_factory=list)
    levels: list[Sweep] = field(default_factory=list)  # of passes before the cost
    fractions: dict[str, int] = field(default_factory=dict)  # of every vector and of the sums' words
    gradients: dict[str, int] = field(default_factory=dict)  # of the contributions to each vector parameter
    lowered: dict[str, tuple[int, ...]] = field(default_factory=dict)
    elements: int = 0  # of a context's vectors
    tiles: int = 0
    drives: int = 0  # rows of the drive memory


def circuits(passes: Sequence[Pass], flow: Flow, states: Mapping[str, int], blocks: Mapping[str, str],
             fractions: Mapping[str, int], values: Mapping[str, np.ndarray], vectors: tuple[str, ...], *, width: int,
             segments: int, accumulator: int, lanes: int, given: Mapping[str, tuple[int, ...]]) -> Circuits:
    """Lower all passes.

    ``blocks`` names the block of every matrix and drive, ``fractions`` holds the formats of states, blocks, drives and
    vector parameters, ``values`` calibrated samples of every vector and parameter by name."""
    return _Lower(passes, flow, states, blocks, fractions, values, vectors, width, segments, accumulator, lanes,
                  given).run()


class _Lower:
    def __init__(self, passes, flow, states, blocks, fractions, values, vectors, width, segments, accumulator, lanes,
                 given):
        self.passes, self.flow, self.blocks, self.values = passes, flow, blocks, values
        self.vectors, self.given = vectors, given
        self.width, self.segments, self.accumulator, self.lanes = width, segments, accumulator, lanes
        self.found = Circuits(fractions=dict(fractions))
        self.places = self._layout(states)
        self.tiles = self._row_operands()
        self.drives: dict[str, int] = {}

    def run(self) -> Circuits:
        for made in self.passes:
            if made.opcode == Opcode.OUTER:
                self._outer(made)
            elif made.opcode == Opcode.FORWARD:
                self._forward(made)
            else:
                self._element(made)
        if max(len(self.found.activate), len(self.found.step)) > _KINDS:
            raise CompileError(f"energy: must need at most {_KINDS} element-wise circuits; use fewer different "
                               f"functions, not {max(len(self.found.activate), len(self.found.step))}")
        return self.found

    # -- places ----------------------------------------------------------------------------------------------------

    def _layout(self, states: Mapping[str, int]) -> dict[str, int]:
        """States, the constant one, then every vector that is kept."""
        places, end = {"u": 0}, 0
        for name, units in states.items():
            places[name] = end
            end += units
        end += 1
        for made in self.passes:
            if made.value and made.result not in places:
                places[made.result] = end
                end += self.flow.lengths[made.result]
        self.found.elements = end
        return places

    def _row_operands(self) -> dict[str, int]:
        tiles, end = {}, 0
        for made in self.passes:
            if made.rows and made.result not in tiles:
                tiles[made.result] = end
                end += -(-self.flow.lengths[made.result] // self.lanes)
        self.found.tiles = end
        return tiles

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
            Opcode.OUTER, made.length, self.blocks[made.matrix], source=self.places[made.x], input=made.x == "u",
            tile=self.tiles[made.t], echo_only=True))

    def _sum_fraction(self, made: Pass) -> int:
        return self.found.fractions[self.blocks[made.matrix]] + self.found.fractions[made.x]

    def _forward(self, made: Pass) -> None:
        kind = 0 if made.kept else self._activation(made)
        self.found.sweeps.append(Sweep(
            Opcode.FORWARD, made.length, self.blocks[made.matrix], kind, source=self.places[made.x],
            input=made.x == "u", place=self.places.get(made.result, 0) if made.value else 0,
            tile=self.tiles[made.result] if made.rows else 0, drive=self._drive(made.acc if made.kept else made.drive),
            value=made.value, rows=made.rows, kept=made.kept))

    def _activation(self, made: Pass) -> int:
        assert made.expr is not None
        f, name = self.found.fractions, f"activate{len(self.found.sweeps)}"
        inputs = [("acc", self.accumulator)] + [("drive", self.width)] * bool(made.drive)
        b = Builder(*inputs)
        z = b("rnd", b.input("acc"), n=self._sum_fraction(made) - f[made.acc])
        if made.drive:
            z = b("add", z, b.input("drive"))
        z = b("sat", z, n=self.width)
        low = self._lowering(name, b, {made.acc: Fixed(z, f[made.acc], True)}, "activate")
        pipeline = b.build(t=self._word(low, made))
        return self._kind("activate", pipeline, low, name)

    def _element(self, made: Pass) -> None:
        transposed = made.opcode == Opcode.TRANSPOSED
        kind = 0
        if made.expr is not None or made.learn:
            kind = self._step(made)
        kicks = bool(made.state) and made.expr is not None
        self.found.sweeps.append(Sweep(
            made.opcode, made.length, self.blocks[made.matrix] if transposed else "", kind,
            first=self.places.get(made.q or made.state, 0), second=self.places.get(made.r, 0),
            place=self.places[made.result] if made.value else 0,
            tile=self.tiles[made.x] if transposed else self.tiles[made.result] if made.rows else 0,
            value=made.value, rows=made.rows, maximum=made.maximum, force=kicks and not transposed, drift=made.drift,
            learn=bool(made.learn), echo_only=made.echo_only))

    def _step(self, made: Pass) -> int:
        f, name = self.found.fractions, f"step{len(self.found.sweeps)}"
        read = {n for e in (made.expr, *(e for _, e in made.learn)) if e is not None for n in e.variables()}
        inputs = [("acc", self.accumulator)] * (bool(made.acc)) + [("q", self.width)]
        inputs += [("r", self.width)] * bool(made.r)
        inputs += [(f"k{i}", self.width) for i, v in enumerate(self.vectors) if v in read]
        b = Builder(*inputs)
        leaves = {}
        if made.acc:
            leaves[made.acc] = Fixed(b.input("acc"), self._transposed_fraction(made))
        for operand, vector in (("q", made.q), ("r", made.r)):
            if vector:
                leaves[vector] = Fixed(b.input(operand), f[vector], True)
        for i, v in enumerate(self.vectors):
            if v in read:
                leaves[v] = Fixed(b.input(f"k{i}"), f[f"vector{i}"], True)
        low = self._lowering(name, b, leaves, "step")
        outputs = {"force": self._force(low, made)}
        for parameter, expr in made.learn:
            self._contribution(low, parameter, expr, outputs)
        return self._kind("step", b.build(**outputs), low, name)

    def _transposed_fraction(self, made: Pass) -> int:
        return self._sum_fraction(made)

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
        f = self.found.fractions
        if made.value:
            frac = f.setdefault(made.result, self._vector_fraction(made.result))
            value = low(made.expr)
            return low.b("sat", low.b("rnd", value.node, n=value.frac - frac), n=self.width)
        value = low.word(made.expr)
        return low.b("rnd", value.node, n=value.frac - f.setdefault(made.result, value.frac))

    def _vector_fraction(self, name: str) -> int:
        largest = float(np.abs(self.values[name]).max(initial=0.0))
        return min(fraction(largest, self.width, 4.0), 2 * self.width)

    def _contribution(self, low: Lowering, parameter: str, expr: Expr, outputs: dict[str, int]) -> None:
        output = f"g{self.vectors.index(parameter)}"
        value = low.wide(expr)
        frac = self.found.gradients.setdefault(parameter, value.frac)
        node = low.b("rnd", value.node, n=value.frac - frac)
        if output in outputs:
            node = low.b("add", outputs[output], node)
        outputs[output] = low.b("sat", node, n=2 * self.width - 1)

    # -- pipelines -------------------------------------------------------------------------------------------------

    def _lowering(self, name: str, b: Builder, leaves: dict[str, Fixed], unit: str) -> Lowering:
        stretched = {v: spread(self.values[v], x.frac, self.width) if x.word and v not in self.vectors
                     else self.values[v] for v, x in leaves.items()}
        return Lowering(b, self.width, self.segments, leaves, stretched, len(self.found.tables[unit]),
                        self.given.get(name, ()))

    def _kind(self, unit: str, pipeline: Pipeline, low: Lowering, name: str) -> int:
        kinds: list[Pipeline] = getattr(self.found, unit)
        self.found.lowered[name] = tuple(low.formats)
        if pipeline in kinds and not low.tables:
            return kinds.index(pipeline)
        self.found.tables[unit] += low.tables
        kinds.append(pipeline)
        return len(kinds) - 1


def spread(values: np.ndarray, frac: int, width: int) -> np.ndarray:
    """Samples stretched over most of their format: words may come to use all of it, and so must what follows."""
    largest = float(np.abs(values).max(initial=0.0))
    return values * (STRETCH * 2.0 ** (width - 1 - frac) / largest) if largest else values
