"""Bits of the element-wise pipelines by what they cost, counted from the `Hardware` alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from echolith.compiler.design import Hardware
from echolith.compiler.pipeline import LATENCY, Op, Pipeline, latency, schedule

__all__ = ["Circuit", "circuits"]


@dataclass
class Circuit:
    """Pipelines side by side on the same inputs. What is equal in several counts once, since synthesis merges it, but
    for products of deep pipelines."""

    kinds: Counter[str] = field(default_factory=Counter)  # ops by kind
    sums: int = 0  # bits of sums, roundings, comparisons
    limits: int = 0  # bits that are looked at to clip them
    products: int = 0  # bits of results of multipliers
    registers: int = 0  # bits of all other results, and of values waiting for others
    choice: int = 0  # bits of outputs among which a command chooses


def circuits(hw: Hardware) -> list[Circuit]:
    """Activations, cost, steps, drift."""
    moved = max(map(latency, hw.step)) + max(map(latency, hw.drift))  # positions wait for their own change
    groups = ((hw.activate, 0), ((hw.cost,) if hw.cost else (), 0), (hw.step, moved), (hw.drift, 0))
    return [_Counting(hw.width, hw.segments).all(group, wait) for group, wait in groups]


class _Counting:
    """Adds pipelines up to a `Circuit`. Equal values of several pipelines have the same number."""

    def __init__(self, width: int, segments: int):
        self.width, self.segments = width, segments
        self.found = Circuit()
        self.numbers: dict[tuple, int] = {}
        self.waits: dict[tuple[int, int], int] = {}  # number and bits of a value -> longest wait

    def all(self, pipelines: Sequence[Pipeline], positions: int) -> Circuit:
        """The circuit; ``positions`` is how long the input q waits at least."""
        last = max((latency(p) for p in pipelines), default=0)
        outputs: dict[str, list[int]] = {}
        for p in pipelines:
            values, ready = self._values(p), schedule(p)
            for name, index in p.outputs:
                if name != "y":  # taken as soon as it is there
                    self._wait(values[index], last - ready[index])
                outputs.setdefault(name, []).append(values[index][1])
        position = "input", self.width, "q"
        self._wait((self.numbers.setdefault(position, len(self.numbers)), self.width), positions)
        self.found.registers += sum(bits * stages for (_, bits), stages in self.waits.items())
        if len(pipelines) > 1:
            self.found.choice = sum(len(bits) * max(bits) for bits in outputs.values())
        return self.found

    def _values(self, p: Pipeline) -> list[tuple[int, int]]:
        """Number and bits of what is kept of every op until it is used: nothing of constants, no zeros put behind."""
        numbers: list[int] = []
        values: list[tuple[int, int]] = []
        widths, ready = _widths(p, self.width), schedule(p)
        for index, op in enumerate(p.ops):
            if op.kind != "shl":
                for a in op.args:
                    self._wait(values[a], ready[index] - p.stages[op.kind] - ready[a])
            key = op.kind, op.n, op.name, *(numbers[a] for a in op.args)
            if key not in self.numbers:
                self._op(op, widths[index], [widths[a] for a in op.args])
            elif op.kind == "mul" and p.deep:  # each in a cell of its own
                self.found.kinds["mul"] += 1
            numbers.append(self.numbers.setdefault(key, len(self.numbers)))
            kept = numbers[-1], 0 if op.kind == "const" else widths[index]
            values.append(values[op.args[0]] if op.kind == "shl" else kept)
        return values

    def _wait(self, value: tuple[int, int], stages: int) -> None:
        self.waits[value] = max(stages, self.waits.get(value, 0))

    def _op(self, op: Op, bits: int, arguments: list[int]) -> None:
        found = self.found
        found.kinds[op.kind] += 1
        if op.kind == "mul":
            found.products += bits
        elif op.kind == "table":  # value and fraction wait for difference and product; then the interpolation
            found.products += 2 * bits - self.segments + 1
            found.registers += bits + (bits - self.segments) + bits
            found.sums += bits
        elif LATENCY[op.kind]:
            found.registers += bits
            if op.kind != "sat":
                found.sums += bits
            elif arguments[0] > op.n:
                found.limits += arguments[0]


def _widths(pipeline: Pipeline, width: int) -> list[int]:
    """Bits of every op's result; ``width`` are those of a table's."""
    widths: list[int] = []
    for op in pipeline.ops:
        widths.append(_bits(op, [widths[a] for a in op.args], width))
    return widths


def _bits(op: Op, arguments: list[int], width: int) -> int:
    if op.kind in ("input", "table"):
        return op.n if op.kind == "input" else width
    if op.kind == "const":
        return (op.n if op.n >= 0 else ~op.n).bit_length() + 1
    if op.kind == "mul":
        return sum(arguments)
    if op.kind in ("shl", "rnd", "even"):
        return arguments[0] + (op.n if op.kind == "shl" else 1 - op.n)
    return min(arguments[0], op.n) if op.kind == "sat" else max(arguments) + (op.kind in ("add", "sub"))
