"""The force as a flow of vectors, derived from the energy by reverse-mode differentiation.

The energy is differentiated times dt, so that every adjoint and every kick carries the step. A matrix that enters
twice is one block: its second use runs over the same words, in the other direction if it enters transposed.
"""

from dataclasses import replace
from functools import reduce

import numpy as np

from echolith.compiler import convolve, gathers
from echolith.compiler.differentiate import derivative, evaluate, names
from echolith.compiler.errors import CompileError
from echolith.compiler.factors import factors
from echolith.compiler.graph import Affine, Bias, Convolution, Dense, Graph, Index, Reduce, Term
from echolith.compiler.ir import Expr, const, var
from echolith.compiler.ops import add, mul
from echolith.compiler.reductions import below_one, bounded, levels, logarithm
from echolith.compiler.repeats import Repeats
from echolith.compiler.steps import Accumulate, Drive, Flow, Kick, Linear, Map, Matrix, Maximum, Outer, dense, error

__all__ = ["Derivation", "derive"]

_ZERO = const(0)


def derive(graph: Graph, dt: float, learn: bool) -> Flow:
    """Forces and, with ``learn``, local updates of an energy."""
    flow = Derivation(graph, dt, learn).run()
    if graph.growth:
        flow = flow.rewritten(factors(graph).cancelled)
    return flow.rewritten(lambda expr: bounded(expr, tops)) if (tops := levels(graph)) else flow


class Derivation:
    """Steps of an energy's forces and updates; `reading` derives those of a read-out."""

    def __init__(self, graph: Graph, dt: float, learn: bool):
        self.graph, self.dt, self.learn = graph, dt, learn
        self.flow = Flow(lengths={**graph.states, **graph.fed, "u": graph.inputs}, values=dict(graph.values))
        self.sources: dict[tuple[str, int], str] = {}  # node, term -> the vector that the matrix is applied to
        self.oriented: dict[Matrix, Matrix] = {}  # untransposed -> as first used
        self.adjoints: dict[str, Expr] = {}
        self.repeats = Repeats(self.flow)
        self.driving: dict[str, str] = {}  # node -> its drive
        self.nodes: dict[str, Affine] = {}  # with frozen matrices of one source merged

    def run(self) -> Flow:
        for name, node in self.graph.nodes.items():
            self._forward(name, node)
        self._adjoint(self.dt)
        for name, length in self.graph.fed.items() if self.learn else ():
            self.flow.lengths[error(name)] = length
            self.flow.steps.append(Map(error(name), length, self.adjoints.get(name, _ZERO)))
        for state, units in self.graph.states.items():
            kick = self.adjoints.get(state, _ZERO)
            if kick != _ZERO:
                self.flow.steps.append(Kick(state, units, kick))
        if self.learn:
            self._parameters()
        self._readout()
        return self.flow

    def _adjoint(self, factor: float) -> None:
        """Of ``factor`` times the energy."""
        for total in self.graph.energy:
            scaled = mul(factor, total.expr)
            for vector in sorted(self._vectors(total.expr)):
                self._add(vector, derivative(scaled, vector))
        for name in reversed(self.graph.nodes):
            self._backward(name)

    def _readout(self) -> None:
        form = self.graph.readout
        if form is not None:
            terms = tuple(t if isinstance(t.matrix, Dense) else
                          replace(t, matrix=self._dense(t, form.length, self._length(t.source))) for t in form.terms)
            self.flow.readout = replace(form, terms=terms)

    # -- forward ---------------------------------------------------------------------------------------------------

    def _forward(self, name: str, node: Affine | Reduce) -> None:
        if isinstance(node, Reduce):
            self._logsumexp(name, node)
            return
        node = self.nodes[name] = self._merged(node)
        moving = [i for i, t in enumerate(node.terms) if names(t.source) - {"u"} & self._vectors(t.source)
                  and self._vectors(t.source) != {"u"}]
        fixed = [i for i, t in enumerate(node.terms) if self._moves_learned(t)]
        driving = tuple(t for i, t in enumerate(node.terms) if i not in moving + fixed)
        drive = self._drive(name, node, driving) if driving or node.biases else None
        if drive is not None:
            self.driving[name] = drive
        total = _ZERO
        matrices = [i for i in moving if isinstance(node.terms[i].matrix, Dense)]
        for place, i in enumerate(matrices):
            term = node.terms[i]
            x = self._source(name, i, term)
            matrix, backward = self._matrix(term, node.length, self.flow.lengths[x])
            result = self.flow.new(f"{name}_{i}" if len(moving) > 1 else f"{name}_", node.length)
            last = place == len(matrices) - 1 and not backward and term.scale == 1
            self.flow.steps.append(Linear(result, node.length, matrix.key, backward, x, drive if last else None))
            drive = None if last else drive
            total = add(total, mul(term.scale, var(result)))
        if drive is not None:  # beside no product, or beside one that cannot carry it
            result = self.flow.new(f"{name}_u", node.length)
            self.flow.steps.append(Linear(result, node.length, drive, False, "u"))
            total = add(total, var(result))
        for i in moving:
            term = node.terms[i]
            if isinstance(term.matrix, Index):
                total = add(total, mul(term.scale, self._gather(name, i, term)))
            elif isinstance(term.matrix, Convolution):
                parts = self.repeats.convolution(f"{name}_{i}", term.matrix, self._source(name, i, term))
                total = add(total, mul(term.scale, reduce(add, parts)))
        for i in fixed:
            term = node.terms[i]
            assert isinstance(term.matrix, Index)
            total = add(total, mul(term.scale, self.repeats.bias(f"{name}_{i}", term.source.name, term.matrix.of)))
        self.flow.lengths[name] = node.length
        self.flow.steps.append(Map(name, node.length, total))

    def _gather(self, name: str, index: int, term: Term) -> Expr:
        """A move of its source."""
        assert isinstance(term.matrix, Index)
        return self.flow.moved(f"{name}_{index}", self._source(name, index, term), term.matrix.of)

    def _merged(self, node: Affine) -> Affine:
        """Frozen matrices applied to the same vector become one, with their factors; moves that are worth it become
        gathers."""
        frozen: dict[Expr, list[Term]] = {}
        terms: list[Term] = []
        biases = list(node.biases)
        for term in node.terms:
            matrix, vectors = term.matrix, self._vectors(term.source)
            if not isinstance(matrix, Index) and self._learns(matrix.parameter):
                terms.append(term)
            elif isinstance(matrix, Convolution) and vectors - {"u"} or self._moves_learned(term):
                terms.append(term)
            elif not vectors:
                biases.append(Bias(self._constant(self._known(term, node.length))))
            else:
                frozen.setdefault(term.source, []).append(term)
        for source, found in frozen.items():
            inputs = self._vectors(source) == {"u"}
            columns = self.graph.inputs if inputs else self._length(source)
            moves = not inputs and all(isinstance(t.matrix, Index) for t in found)
            if moves and gathers.worth(found, node.length, columns):
                terms += gathers.gathered(found, node.length)
                continue
            array = np.sum([t.scale * dense(self._dense(t, node.length, columns), self.flow.values) for t in found], 0)
            terms.append(Term(Dense(self._constant(array)), source))
        return replace(node, terms=tuple(terms), biases=tuple(biases))

    def _moves_learned(self, term: Term) -> bool:
        """Whether it moves the elements of a learned vector, a bias of several units."""
        name = term.source.name if term.source.op == "param" else ""
        if not isinstance(term.matrix, Index) or not self._learns(name):
            return False
        value = self.flow.values[name]
        return value.ndim > 0 and len(value) == value.size

    def _known(self, term: Term, length: int) -> np.ndarray:
        """A frozen matrix applied to parameters alone."""
        moved = sorted(names(term.source) & self.graph.learned) if self.learn else []
        if moved:
            raise CompileError("energy: a learned vector whose elements are moved or summed is not built on the chip "
                               f"yet; declare it in the shape in which it is used, not {', '.join(moved)}")
        flat = {name: np.asarray(v).reshape(-1) for name, v in self.flow.values.items()}
        source = np.atleast_1d(evaluate(term.source, flat))
        return term.scale * (dense(self._dense(term, length, len(source)), self.flow.values) @ source)

    def _drive(self, name: str, node: Affine, terms: tuple[Term, ...]) -> str:
        if any(t.source != var("u") for t in terms):
            bad = next(t.source for t in terms if t.source != var("u"))
            raise CompileError("energy: a matrix is applied to a function of the inputs; transform the data before "
                               f"the network sees them, not {bad}")
        drive = self.flow.new(f"{name}_drive", node.length)
        dense = tuple(replace(t, matrix=self._dense(t, node.length, self.graph.inputs)) for t in terms)
        self.flow.drives[drive] = Drive(drive, node.length, dense, node.biases)
        return drive

    def _source(self, name: str, index: int, term: Term) -> str:
        """The vector that a term's matrix is applied to; a function of vectors becomes one of its own."""
        if term.source.op == "var":
            return self._keep(name, index, term.source.name)
        length = self._length(term.source)
        for step in self.flow.steps:
            if isinstance(step, Map) and step.expr == term.source:
                return self._keep(name, index, step.name)
        x = self.flow.new(f"x{sum(isinstance(s, Map) for s in self.flow.steps)}", length)
        self.flow.steps.append(Map(x, length, term.source))
        return self._keep(name, index, x)

    def _keep(self, name: str, index: int, x: str) -> str:
        self.sources[name, index] = x
        return x

    def _dense(self, term: Term, rows: int, columns: int) -> Dense:
        """Index matrices as frozen matrices of 0 and 1."""
        if isinstance(term.matrix, Dense):
            return term.matrix
        if isinstance(term.matrix, Convolution):
            if self._learns(term.matrix.parameter):
                raise CompileError("energy: a learned convolution is built of states in the energy alone; freeze its "
                                   "kernel with requires_grad_(False) or use a dense matrix for inputs and outputs, "
                                   f"not {term.matrix.parameter}")
            kernel = np.asarray(self.flow.values[term.matrix.parameter])
            return Dense(self._constant(convolve.apply(term.matrix, kernel, np.eye(columns)).T))
        array = np.zeros((rows, columns))
        for row, column in enumerate(term.matrix.of):
            if column >= 0:
                array[row, column] = 1.0
        return Dense(self._constant(array))

    def _constant(self, array: np.ndarray) -> str:
        for name, value in self.flow.values.items():
            if name not in self.graph.learned and value.shape == array.shape and np.array_equal(value, array):
                return name
        name = f"index{len(self.flow.values)}"
        while name in self.flow.lengths or name in self.flow.values:
            name += "_"
        self.flow.values[name] = array
        return name

    def _matrix(self, term: Term, rows: int, columns: int) -> tuple[Matrix, bool]:
        """The block and whether this use runs backward over it."""
        dense = self._dense(term, rows, columns)
        plain = Matrix(dense.parameter, False, dense.rows, dense.columns)
        wanted = replace(plain, transposed=dense.transposed)
        stored = self.oriented.setdefault(plain, wanted)
        self.flow.matrices[stored.key] = stored
        return stored, stored != wanted

    # -- backward --------------------------------------------------------------------------------------------------

    def _backward(self, name: str) -> None:
        adjoint = self.adjoints.get(name, _ZERO)
        if adjoint == _ZERO:
            return
        reduced = self.graph.nodes[name]
        if isinstance(reduced, Reduce):
            self._softmax(name, reduced, adjoint)
            return
        node = self.nodes[name]
        t, signals = self.flow.map(f"{name}_t", node.length, adjoint), {}
        for i, term in enumerate(node.terms):
            if (name, i) not in self.sources or not isinstance(term.matrix, Dense):
                continue
            x = self.sources[name, i]
            matrix, backward = self._matrix(term, node.length, self.flow.lengths[x])
            signals[i] = self._signal(f"{name}_{i}", term, adjoint, t)
            if self._learns(matrix.parameter):
                rows, columns = (x, signals[i]) if backward else (signals[i], x)
                self.flow.steps.append(Outer(matrix.key, rows, columns))
        self._driven(name, node, t)
        for i, term in enumerate(node.terms):
            if i in signals:
                matrix, backward = self._matrix(term, node.length, self.flow.lengths[self.sources[name, i]])
                self._through(name, i, term, matrix, backward, signals[i])
        for i, term in enumerate(node.terms):
            if (name, i) in self.sources and isinstance(term.matrix, Convolution):
                learns, back = self._learns(term.matrix.parameter), self._signal(f"{name}_{i}", term, adjoint, t)
                for part in self.repeats.transposed(f"{name}_{i}", term.matrix, self.sources[name, i], back, learns):
                    self._returned(term.source, part, self.flow.lengths[self.sources[name, i]])
            elif isinstance(term.matrix, Index) and self._moves_learned(term):
                back = self._signal(f"{name}_{i}", term, adjoint, t)
                self.repeats.bias_gradient(f"{name}_{i}", term.source.name, term.matrix.of, back)
        moves = [t for i, t in enumerate(node.terms) if (name, i) in self.sources and isinstance(t.matrix, Index)]
        for source, scale in dict.fromkeys((m.source, m.scale) for m in moves):
            self._scatter(name, source, scale, [m.matrix for m in moves if (m.source, m.scale) == (source, scale)], t)

    def _signal(self, name: str, term: Term, adjoint: Expr, t: str) -> str:
        """The adjoint of a term without its factor."""
        return t if term.scale == 1 else self.flow.map(f"{name}_t", self.flow.lengths[t], mul(term.scale, adjoint))

    def _driven(self, name: str, node: Affine, t: str) -> None:
        """Gradients of input weights and biases."""
        drive = self.flow.drives.get(self.driving.get(name, ""))
        learned = drive and any(self._learns(x.matrix.parameter) for x in drive.terms)  # type: ignore[union-attr]
        if drive and (learned or any(self._learns(b.parameter) for b in drive.biases)):
            self.flow.steps.append(Outer(drive.name, t, "u"))

    def _through(self, name: str, i: int, term: Term, matrix: Matrix, backward: bool, t: str) -> None:
        """The adjoint of a matrix's source, and of what the source is a function of."""
        back = self.flow.new(f"{name}_{i}_back", self.flow.lengths[self.sources[name, i]])
        self.flow.steps.append(Linear(back, self.flow.lengths[back], matrix.key, not backward, t))
        self._returned(term.source, var(back), self.flow.lengths[back])

    def _scatter(self, name: str, source: Expr, scale: float, indices: list, t: str) -> None:
        """The adjoint of a source that is moved, in as many gathers as one of its elements is read."""
        length = self._length(source)
        for of in gathers.adjoint(indices, length):
            self._returned(source, mul(scale, self.flow.moved(f"{name}_back", t, of)), length)

    def _returned(self, source: Expr, back: Expr, length: int) -> None:
        """An adjoint to what its vector is a function of."""
        for vector in sorted(self._vectors(source) - {"u"}):
            self._add(vector, mul(back, derivative(source, vector)))
        if self.learn:
            for parameter in sorted(names(source) & self.graph.learned):
                slope = mul(1 / self.dt, derivative(source, parameter))
                self._accumulate(parameter, length, mul(back, slope))

    def _parameters(self, factor: float = 1.0) -> None:
        """Gradients of the parameters inside the energy's element-wise terms."""
        for total in self.graph.energy:
            for parameter in sorted(names(total.expr) & self.graph.learned):
                self._accumulate(parameter, total.length, mul(factor, derivative(total.expr, parameter)))

    def _accumulate(self, parameter: str, length: int, expr: Expr) -> None:
        if expr != _ZERO:
            self.flow.steps.append(Accumulate(parameter, length, expr))

    # -- reductions ------------------------------------------------------------------------------------------------

    def _logsumexp(self, name: str, node: Reduce) -> None:
        n, top = node.length, self.flow.new(f"{name}_max", 1)
        self.flow.steps.append(Maximum(top, n, node.expr))
        exps = self.flow.map(f"{name}_exp", n, below_one(node.expr, var(self._repeated(top, n))))
        total = self._product(f"{name}_sum", 1, np.ones((1, n)), exps)
        self.flow.lengths[name] = 1
        self.flow.steps.append(Map(name, 1, add(logarithm(var(total)), var(top))))

    def _softmax(self, name: str, node: Reduce, adjoint: Expr) -> None:
        """The adjoint of what a logsumexp is taken of."""
        n = node.length
        if names(adjoint) & set(self.flow.lengths):
            adjoint = var(self._repeated(self.flow.map(f"{name}_t", 1, adjoint), n))
        share = below_one(node.expr, var(self._repeated(name, n)))
        back = mul(adjoint, var(self.flow.map(f"{name}_share", n, share)))
        for vector in sorted(self._vectors(node.expr) - {"u"}):
            self._add(vector, mul(back, derivative(node.expr, vector)))
        for parameter in sorted(names(node.expr) & self.graph.learned) if self.learn else ():
            self._accumulate(parameter, n, mul(mul(1 / self.dt, back), derivative(node.expr, parameter)))

    def _repeated(self, name: str, length: int) -> str:
        """A vector of one element as one of ``length``."""
        return self._product(f"{name}_all", length, np.ones((length, 1)), name)

    def _product(self, name: str, length: int, array: np.ndarray, x: str) -> str:
        """A frozen matrix times a vector."""
        name = self.flow.new(name, length)
        matrix, _ = self._matrix(Term(Dense(self._constant(array)), var(x)), *array.shape)
        self.flow.steps.append(Linear(name, length, matrix.key, False, x))
        return name

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _learns(self, parameter: str) -> bool:
        return self.learn and parameter in self.graph.learned

    def _add(self, vector: str, expr: Expr) -> None:
        if vector != "u" and expr != _ZERO:
            self.adjoints[vector] = add(self.adjoints.get(vector, _ZERO), expr)

    def _vectors(self, expr: Expr) -> frozenset[str]:
        return names(expr) & {*self.graph.states, *self.graph.fed, *self.graph.nodes, "u"}

    def _length(self, expr: Expr) -> int:
        return max(self.flow.lengths[v] for v in self._vectors(expr))
