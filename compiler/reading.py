"""The flow of a read-out: what computes y, what brings its derivative back to states and parameters; see `reads`."""

from collections import Counter
from dataclasses import replace
from functools import reduce

from echolith.compiler.differentiate import derivative
from echolith.compiler.flow import Derivation
from echolith.compiler.graph import Affine, Graph, Reduce, Term
from echolith.compiler.ir import const, var
from echolith.compiler.ops import add, mul
from echolith.compiler.repeats import Repeats
from echolith.compiler.shared import Value, shared
from echolith.compiler.steps import DELTA, ERROR, FINE, OUTPUT, SLOPE, VALUE, Flow, Linear, Map, Outer, error

__all__ = ["derive_joins", "derive_reading"]


def derive_joins(graph: Graph, dt: float, learn: bool, first: Flow) -> Flow:
    """Of a graph whose energy is what every layer is fed times its `steps.error`, in the same way."""
    return _Joins(graph, dt, learn, first).run()


def derive_reading(graph: Graph, dt: float, learn: bool, first: Flow) -> Flow:
    """Of a graph whose energy is y times `ERROR`; it has the words and vectors of ``first``, the energy's flow, too."""
    return _Reading(graph, dt, learn, first).run()


class _Reading(Derivation):
    """Of a graph whose energy is the read-out times the vector `ERROR`: no kicks, but the derivatives as vectors."""

    def __init__(self, graph: Graph, dt: float, learn: bool, first: Flow):
        super().__init__(graph, dt, learn)
        first.lengths |= graph.states
        self.flow = replace(first, steps=[])
        self.oriented = {replace(m, transposed=False): m for m in first.matrices.values()}
        self.repeats = Repeats(self.flow)

    def run(self) -> Flow:
        for name, node in self.graph.nodes.items():
            self._forward(name, node)
        (total,) = self.graph.energy
        self.flow.map(OUTPUT, total.length, derivative(total.expr, ERROR))
        if self.learn:
            self._echoed(total.length)
        return self.flow

    def _echoed(self, outputs: int) -> None:
        """Back from the row operands that the cost leaves: twice the negative derivative, which is the contrast of the
        echoes that it moves."""
        sums = self.flow.new(f"{ERROR}_sums", outputs)
        self.flow.steps += [Linear(sums, outputs, "readout", True, DELTA), Map(ERROR, outputs, mul(-2, var(sums)))]
        self._adjoint(1.0)
        for state, units in self.graph.states.items():
            if state != ERROR and self.adjoints.get(state, const(0)) != const(0):
                self.flow.map(f"{SLOPE}{state}", units, self.adjoints[state])
        self._parameters(1 / self.dt)
        self._refine(next(i for i, s in enumerate(self.flow.steps) if isinstance(s, Map) and s.name == ERROR))

    def _refine(self, back: int) -> None:
        """Row operands of gradients apart from those of sweeps: fewer bits of range, more below. Those of several
        columns of one block are apart too, since rows and columns together have one format. Steps from ``back`` on."""
        known, steps = set(self.flow.lengths), []
        made = {getattr(s, "name", "") for s in self.flow.steps[back:]}
        uses: Counter[tuple[str, str]] = Counter()
        for step in self.flow.steps:
            if isinstance(step, Outer) and step.rows in made and step.positions == 1:
                uses[step.rows, step.matrix] += 1
                name = step.rows + FINE * uses[step.rows, step.matrix]
                if name not in known:
                    known.add(name)
                    self.flow.lengths[name] = self.flow.lengths[step.rows]
                    steps.append(Map(name, self.flow.lengths[name], var(step.rows)))
                step = replace(step, rows=name)
            steps.append(step)
        self.flow.steps = steps

    def _drive(self, name: str, node: Affine, terms: tuple[Term, ...]) -> str:
        """One that the energy has too is the same block."""
        made = super()._drive(name, node, terms)
        drive = self.flow.drives[made]
        for other in self.flow.drives.values():
            if replace(other, name=made) == drive and other.name != made:
                del self.flow.drives[made]
                return other.name
        return made


class _Joins(_Reading):
    """Of a stack: what its layers are fed, and what their errors do to the layers below."""

    def __init__(self, graph: Graph, dt: float, learn: bool, first: Flow):
        first.values |= graph.values
        super().__init__(shared(graph, VALUE), dt, learn, first)

    def run(self) -> Flow:
        for name, node in self.graph.nodes.items():
            self._forward(name, node)
        for name, length in self.graph.fed.items():
            exprs = [derivative(t.expr, error(name)) for t in self.graph.energy]
            self.flow.steps.append(Map(name, length, reduce(add, exprs)))
        if self.learn:
            back, errors = len(self.flow.steps), set(map(error, self.graph.fed))
            self._adjoint(1.0)
            for state, units in self.graph.states.items():
                if state not in errors and self.adjoints.get(state, const(0)) != const(0):
                    self.flow.map(f"{SLOPE}{state}", units, self.adjoints[state])
            self._parameters(1 / self.dt)
            self._refine(back)
        return self.flow

    def _forward(self, name: str, node: Affine | Reduce | Value) -> None:
        if not isinstance(node, Value):
            super()._forward(name, node)
            return
        self.flow.map(name, node.length, node.expr)

    def _backward(self, name: str) -> None:
        node, adjoint = self.graph.nodes[name], self.adjoints.get(name, const(0))
        if not isinstance(node, Value):
            super()._backward(name)
        elif adjoint != const(0):
            self._returned(node.expr, var(self.flow.map(f"{name}_t", node.length, adjoint)), node.length)
