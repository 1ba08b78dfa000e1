"""Element-wise fixed-point circuits: a small single-assignment program, its meaning and its latency.

    pipeline ::= inputs, ops, outputs
    op       ::= input | const(n) | add(a, b) | sub(a, b) | mul(a, b) | shl(a; n) | rnd(a; n) | even(a; n) | sat(a; n)
               | unless(a, b; n) | table(a; n)

Where nudges come from circuits, a rounding ``rnd`` of few bits is an ``even`` one, half to even: half up, of so few
bits, half or a quarter of the words go up by half a unit, and echoes that take them with opposite signs add that up,
step after step.

The integer model evaluates it with `evaluate`; `rtl.pipeline` builds one register stage per unit of `LATENCY`,
or of `DEEP`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from echolith.compiler.errors import CompileError
from echolith.sim import arith

__all__ = ["DEEP", "LATENCY", "Builder", "Op", "Pipeline", "evaluate", "latency", "schedule"]

# Register stages of each operation. A table reads memory, multiplies the slope, adds.
LATENCY = {"input": 0, "const": 0, "shl": 0, "add": 1, "sub": 1, "mul": 1, "rnd": 1, "even": 1, "sat": 1, "unless": 1,
           "table": 3}
DEEP = LATENCY | {"mul": 2, "table": 5}  # with registers in front of multipliers and behind memories
_FARTHEST = 62  # bits of a shift that int64 holds
_FEW = 2  # bits dropped with which half way is common


@dataclass(frozen=True)
class Op:
    """``kind`` applied to earlier ops; ``n`` is the shift, the width, the constant or the table slot."""

    kind: str
    args: tuple[int, ...] = ()
    n: int = 0
    name: str = ""


@dataclass(frozen=True)
class Pipeline:
    """Ops in order of definition; ``inputs`` are (name, width), ``outputs`` (name, op index)."""

    inputs: tuple[tuple[str, int], ...]
    ops: tuple[Op, ...]
    outputs: tuple[tuple[str, int], ...]
    deep: bool = False

    @property
    def stages(self) -> Mapping[str, int]:
        """Register stages by kind of operation."""
        return DEEP if self.deep else LATENCY

    def tables(self) -> tuple[int, ...]:
        """Table slots used, one per table op, in order."""
        return tuple(op.n for op in self.ops if op.kind == "table")


class Builder:
    """Collects ops, merging equal ones and computing what is constant. With ``even``, roundings of few bits
    are half to even."""

    def __init__(self, *inputs: tuple[str, int], even: bool = False):
        self.inputs, self.even = inputs, even
        self.ops: list[Op] = [Op("input", n=width, name=name) for name, width in inputs]

    def __call__(self, kind: str, *args: int, n: int = 0) -> int:
        if kind == "rnd" and n <= 0:
            kind, n = "shl", -n
        if kind == "shl" and n == 0:
            return args[0]
        if kind == "rnd" and n <= _FEW and self.even:
            kind = "even"
        op = Op(kind, args, n)
        known = args and all(self.ops[a].kind == "const" for a in args)
        if kind in ("rnd", "shl") and n > _FARTHEST and not known:
            raise CompileError("numbers of very different size meet, which no word holds together; scale the terms "
                               f"alike and leave out what moves nothing, not a shift by {n} bits")
        if known:
            op = Op("const", n=apply(op, *(self.ops[a].n for a in args)))
        if op in self.ops:
            return self.ops.index(op)
        self.ops.append(op)
        return len(self.ops) - 1

    def input(self, name: str) -> int:
        return [n for n, _ in self.inputs].index(name)

    def build(self, **outputs: int) -> Pipeline:
        return Pipeline(tuple(self.inputs), tuple(self.ops), tuple(outputs.items()))


def table_lookup(x: Any, table: Any, width: int, segments: int) -> Any:
    """``value + rnd(difference * fraction)`` of the segment that holds ``x``; ``table`` is (2^segments, 2)."""
    index = arith.table_address(x, width, segments)
    fraction = arith.table_fraction(x, width, segments)
    return arith.wrap(table[index, 0] + arith.rnd(table[index, 1] * fraction, width - segments), width)


_MEANING: dict[str, Callable[..., Any]] = {
    "add": lambda n, a, b: a + b,
    "sub": lambda n, a, b: a - b,
    "mul": lambda n, a, b: a * b,
    "shl": lambda n, a: a << n,
    "rnd": lambda n, a: arith.rnd(a, n),
    "even": lambda n, a: arith.even(a, n),
    "sat": lambda n, a: arith.sat(a, n),
    "unless": lambda n, a, b: arith.unless(a, b, n),
}


def apply(op: Op, *args: Any) -> Any:
    """The value of every op but ``input`` and ``table`` on ints, arrays or Amaranth values."""
    return op.n if op.kind == "const" else _MEANING[op.kind](op.n, *args)


def evaluate(pipeline: Pipeline, inputs: Mapping[str, Any], tables: Sequence[Any], width: int, segments: int) -> dict:
    """Outputs by name for integer ``inputs`` (arrays of one shape). A table may be a function that looks words up."""
    values: list[Any] = []
    for op in pipeline.ops:
        args = [values[a] for a in op.args]
        if op.kind == "input":
            values.append(inputs[op.name])
        elif op.kind == "table":
            table = tables[op.n]
            values.append(table(args[0]) if callable(table) else table_lookup(args[0], table, width, segments))
        else:
            values.append(apply(op, *args))
    return {name: values[index] for name, index in pipeline.outputs}


def schedule(pipeline: Pipeline) -> list[int]:
    """Cycle at which each op's result is available, inputs at 0."""
    ready: list[int] = []
    for op in pipeline.ops:
        ready.append(max((ready[a] for a in op.args), default=0) + pipeline.stages[op.kind])
    return ready


def latency(pipeline: Pipeline) -> int:
    """Cycles from inputs to outputs; all outputs are aligned to the latest."""
    ready = schedule(pipeline)
    return max((ready[index] for _, index in pipeline.outputs), default=0)
