"""Instruction selection: a flow becomes sweeps of the array and passes of the neuron unit, fused where one can carry
the other.

A forward sweep's sums go through an element-wise circuit of their own; a transposed sweep's sums go through one that
reads two more vectors; a pass reads two vectors. What needs more is cut into pieces that are kept as vectors.
"""

from collections import Counter
from dataclasses import dataclass, replace

from echolith.compiler.differentiate import exchanged, names, substitute
from echolith.compiler.errors import CompileError
from echolith.compiler.inline import OPERANDS, inlined, reads
from echolith.compiler.ir import Expr, const, var
from echolith.compiler.isa import Opcode
from echolith.compiler.ops import add, neg
from echolith.compiler.steps import (
    DELTA,
    ONE,
    Accumulate,
    Flow,
    Gather,
    Kick,
    Linear,
    Map,
    Maximum,
    Outer,
    Step,
    error,
)

__all__ = ["Pass", "select", "select_reading"]


@dataclass
class Pass:
    """One sweep before formats. ``expr`` is over ``acc`` (the sums), ``q``, ``r`` by the vectors' own names.

    ``result`` names the vector it makes; ``state`` the one it kicks. ``value``, ``rows``: the result is kept among the
    vectors, or as row operands; of ``maximum`` only the largest element, and
    ``kept`` sums go where drives are. ``learn`` holds (parameter, expr) of vector gradients."""

    opcode: int  # an `isa.Opcode`
    length: int
    matrix: str = ""  # key of a matrix, or a drive
    x: str = ""  # FORWARD: column operand; TRANSPOSED: row operand; OUTER: column operand
    t: str = ""  # OUTER: row operand
    acc: str = ""
    drive: str = ""
    q: str = ""
    r: str = ""
    expr: Expr | None = None
    result: str = ""
    state: str = ""
    value: bool = False
    rows: bool = False
    drift: bool = False
    maximum: bool = False
    kept: bool = False
    learn: tuple[tuple[str, Expr], ...] = ()
    contrast: bool = False  # of the echoes, kept with the pair
    parts: tuple[str, ...] = ()  # vectors side by side that together are ``q``
    positions: int = 1  # a block's sweep over as many pieces of its operands
    gathers: tuple[Gather, ...] = ()  # those of ``q``, ``r``, ``x`` that are made from a vector as they are read

    def source(self, operand: str) -> str:
        """The vector that ``q``, ``r`` or ``x`` is read from."""
        return next((g.x for g in self.gathers if g.name == operand), operand)

    @property
    def operands(self) -> frozenset[str]:
        return frozenset((self.acc, self.q, self.r)) - {""}

    @property
    def echo_only(self) -> bool:
        return self.opcode == Opcode.OUTER or self.contrast or (bool(self.learn) and not self.result and not self.state)


def select(flow: Flow, states: tuple[str, ...], fed: frozenset[str] = frozenset()) -> list[Pass]:
    """Passes of one evaluation of the force, in order; the last one that needs a state's position moves it. Layers of a
    stack are ``fed`` vectors, and make their errors."""
    errors = frozenset(map(error, fed)) & frozenset(flow.lengths)
    found = _Selection(inlined(flow.steps, flow, errors), flow, states, fed, errors).drifting()
    found = [p for made in found for p in (_apart(made, flow) if made.result in errors else [made])]
    for made in found:
        made.contrast = made.result in errors
    return found


def _apart(made: Pass, flow: Flow) -> list[Pass]:
    """Results of the neuron unit are what can be a contrast."""
    if made.opcode != Opcode.FORWARD:
        return [made]
    sums = flow.new(made.result, made.length)
    again = Pass(Opcode.UNITS, made.length, q=sums, expr=var(sums), result=made.result, value=True)
    return [replace(made, result=sums), again]


def select_reading(flow: Flow, states: tuple[str, ...], given: frozenset[str], wanted: frozenset[str]) -> list[Pass]:
    """Passes that make the ``wanted`` vectors from states and ``given`` ones; they move no state."""
    return _Selection(inlined(flow.steps, flow, wanted), flow, states, given, wanted).run()


def _terms(expr: Expr) -> list[Expr]:
    """Addends of a sum."""
    if expr.op == "add":
        return _terms(expr.args[0]) + _terms(expr.args[1])
    if expr.op == "sub":
        return _terms(expr.args[0]) + [neg(t) for t in _terms(expr.args[1])]
    return [expr]


class _Selection:
    def __init__(self, steps: list[Step], flow: Flow, states: tuple[str, ...], given: frozenset[str] = frozenset(),
                 wanted: frozenset[str] = frozenset()):
        self.flow, self.states, self.given, self.wanted = flow, states, given, wanted
        self.passes: list[Pass] = []
        self.pieces: dict[Expr, str] = {}  # sub-expressions that were cut out -> vectors
        self.gathers = {s.name: s for s in steps if isinstance(s, Gather)}
        self.steps = self._split(steps)
        self.done: set[int] = set()  # steps that a sweep carried
        self.kept: set[str] = set(states) | {"u", ONE} | given  # vectors that can be read
        self.waiting: dict[int, Linear] = {}  # by the step that only their sweep can carry, once its vectors are there

    def run(self) -> list[Pass]:
        for step in self.steps:
            if id(step) in self.done:
                continue
            if id(step) in self.waiting:
                self._linear(self.waiting[id(step)])
            elif isinstance(step, Linear):
                if not self._waits(step):
                    self._linear(step)
            elif isinstance(step, Gather):
                self._read(step.x)
                self.kept.add(step.name)
            elif isinstance(step, Map | Maximum):
                self._map(step)
            elif isinstance(step, Kick):
                self._kick(step)
            elif isinstance(step, Outer):
                self._outer(step)
        for step in self.steps:
            if isinstance(step, Accumulate):
                self._accumulate(step)
        for made in self.passes:
            read = dict.fromkeys((made.q, made.r, made.x))
            made.gathers = tuple(self.gathers[n] for n in read if n in self.gathers)
        self._needs()
        return self.passes

    # -- shape of the work -----------------------------------------------------------------------------------------

    def _vectors(self, expr: Expr) -> frozenset[str]:
        return names(expr) & frozenset(self.flow.lengths)

    def _split(self, steps: list[Step]) -> list[Step]:
        """Kicks as one per sum of a transposed sweep, with as much of the rest as fits, and one per remainder; maps cut
        down to what a pass can read."""
        backward = self.carriable = self._carriable(steps)
        found: list[Step] = []
        for step in steps:
            if isinstance(step, Kick):
                found += [Kick(step.state, step.length, e) for e in self._groups(step, backward)]
            else:
                found.append(step)
        result: list[Step] = []
        for step in found:
            if isinstance(step, Map | Maximum | Kick | Accumulate):
                result += self._cut(step, backward)
            else:
                result.append(step)
        return result

    def _carriable(self, steps: list[Step]) -> set[str]:
        """Sums of transposed sweeps that are read once; others are vectors like any."""
        every = [self._vectors(t) for s in steps if isinstance(s, Kick) for t in _terms(s.expr)]
        every += [reads(s, self.flow) for s in steps if not isinstance(s, Kick)]
        counts = Counter(v for read in every for v in read)
        sums = [s.name for s in steps if isinstance(s, Linear) and s.backward and counts[s.name] == 1]
        for read in every:  # of several in one place, the last one
            beside = [name for name in sums if name in read]
            sums = [name for name in sums if name not in beside[:-1]]
        return set(sums)

    def _groups(self, kick: Kick, backward: set[str]) -> list[Expr]:
        sums: list[Expr] = []
        rest: list[Expr] = []
        for term in _terms(kick.expr):
            (sums if len(self._vectors(term) & backward) else rest).append(term)
        groups = list(sums)
        for term in rest:
            for i, group in enumerate(groups):
                if self._fits(add(group, term), kick.state, backward):
                    groups[i] = add(group, term)
                    break
            else:
                groups.append(term)
        return sorted(groups, key=lambda g: not self._gathered(g, kick.state))

    def _gathered(self, expr: Expr, state: str) -> bool:
        """Whether a kick reads two vectors but not the state."""
        vectors = self._vectors(expr)
        return state not in vectors and len(vectors) == OPERANDS and bool(vectors & set(self.gathers))

    def _fits(self, expr: Expr, state: str, backward: set[str]) -> bool:
        """Whether a pass can read it: a sum, the state that is kicked, and one or two others."""
        vectors = self._vectors(expr)
        sums, others = vectors & backward, vectors - backward - {state}
        if state and state not in vectors and not sums and len(others) == OPERANDS and others & set(self.gathers):
            return True  # it does not drift
        return len(sums) <= 1 and len(others) <= OPERANDS - bool(state)

    def _cut(self, step: Map | Maximum | Kick | Accumulate, backward: set[str]) -> list[Step]:
        """Sub-expressions of two vectors become vectors until the step fits."""
        state = step.state if isinstance(step, Kick) else ""
        before: list[Step] = []
        expr = step.expr
        while not self._fits(expr, state, backward if not isinstance(step, Accumulate) else set()):
            inner = self._smallest(expr)
            if inner is None:
                raise CompileError("energy: one element-wise function of more than two vectors is not built; write it "
                                   f"as a sum or product of functions of fewer, not {expr}")
            name = self.pieces.get(substitute(inner, {}))
            if name is None:
                name = self.pieces[substitute(inner, {})] = self._new(inner)
                before += self._cut(Map(name, step.length, inner), backward)
            expr = exchanged(expr, inner, var(name))
        return [*before, replace(step, expr=expr)]

    def _smallest(self, expr: Expr) -> Expr | None:
        """The first sub-expression of two vectors; a sum of a transposed sweep counts as one."""
        for arg in expr.args:
            found = self._smallest(arg)
            if found is not None:
                return found
        return expr if len(self._vectors(expr)) == OPERANDS else None

    def _new(self, expr: Expr) -> str:
        name = f"m{sum(n.startswith('m') for n in self.flow.lengths)}"
        while name in self.flow.lengths or name in self.flow.values:
            name += "_"
        self.flow.lengths[name] = max(self.flow.lengths[v] for v in self._vectors(expr))
        return name

    def _readers(self, name: str) -> list[Step]:
        return [s for s in self.steps if name in reads(s, self.flow)]

    # -- sweeps ----------------------------------------------------------------------------------------------------

    def _linear(self, step: Linear) -> None:
        self._read(step.x)
        opcode = Opcode.TRANSPOSED if step.backward else Opcode.FORWARD
        made = Pass(opcode, step.length, step.matrix, x=step.x, acc=step.name, drive=step.drive or "",
                    positions=step.positions)
        carried = self._carried(step)
        if carried is None:
            made.expr, made.result, made.value = var(step.name), step.name, True
            self.kept.add(step.name)
        else:
            self.done.add(id(carried))
            self._carry(made, carried)
        self.passes.append(made)

    def _waits(self, step: Linear) -> bool:
        """Whether the one reader of these sums has more vectors than a pass of its own can read."""
        readers = self._readers(step.name) if step.name in self.carriable else []
        if len(readers) != 1 or not isinstance(readers[0], Map | Kick) or self._carried(step):
            return False
        if self._fits(readers[0].expr, getattr(readers[0], "state", ""), set()):
            return False
        self.waiting[id(readers[0])] = step
        return True

    def _carried(self, step: Linear) -> Map | Kick | None:
        """The one step that reads these sums, if the sweep's circuit can do it."""
        readers = self._readers(step.name)
        if len(readers) != 1 or not isinstance(readers[0], Map | Kick):
            return None
        reader = readers[0]
        others = self._vectors(reader.expr) - {step.name}
        if not step.backward:
            alone = names(reader.expr) == {step.name}  # rows know no parameters
            return reader if isinstance(reader, Map) and alone else None
        return reader if others <= self.kept else None

    def _carry(self, made: Pass, step: Map | Maximum | Kick) -> None:
        made.expr = step.expr
        others = sorted(self._vectors(step.expr) - {made.acc})
        if isinstance(step, Kick):
            made.state = made.q = step.state
            others = [v for v in others if v != step.state]
            if len(others) == OPERANDS:
                others.sort(key=lambda v: v not in self.gathers)
                made.q = others.pop(0)
        else:
            made.result = step.name
            self.kept.add(step.name)
            made.q = others.pop(0) if others else ""
        made.r = others[0] if others else ""
        for name in (made.q, made.r):
            if name:
                self._read(name)

    def _map(self, step: Map | Maximum) -> None:
        made = Pass(Opcode.UNITS, step.length, maximum=isinstance(step, Maximum))
        self._carry(made, step)
        self.passes.append(made)

    def _kick(self, step: Kick) -> None:
        made = Pass(Opcode.UNITS, step.length)
        self._carry(made, step)
        self.passes.append(made)

    def _outer(self, step: Outer) -> None:
        self._read(step.rows)
        self._read(step.columns)
        length = self.flow.lengths[step.rows]
        self.passes.append(Pass(Opcode.OUTER, length, step.matrix, x=step.columns, t=step.rows,
                                positions=step.positions))

    def _accumulate(self, step: Accumulate) -> None:
        """Beside a pass that reads the same vectors, else in one of its own."""
        wanted = self._vectors(step.expr)
        for made in self.passes:
            if made.opcode in (Opcode.TRANSPOSED, Opcode.UNITS) and made.length == step.length \
                    and wanted <= made.operands:
                made.learn += ((step.parameter, step.expr),)
                return
        # A position must be read before it moves: passes that drift are chosen afterwards.
        made = Pass(Opcode.UNITS, step.length, expr=const(0), learn=((step.parameter, step.expr),))
        others = sorted(wanted)
        for name in others:
            self._read(name)
        made.q, made.r = (*others, "", "")[:2]
        self.passes.append(made)

    def _read(self, name: str) -> None:
        if name not in self.kept:
            raise CompileError(f"energy: {name} is read before it is there; this is a defect of the compiler")

    # -- where results go ------------------------------------------------------------------------------------------

    def _needs(self) -> None:
        """Results that are read as vectors are kept as such, those of transposed and outer sweeps as row operands."""
        as_rows = {p.x for p in self.passes if p.opcode == Opcode.TRANSPOSED}
        as_rows |= {p.t for p in self.passes if p.opcode == Opcode.OUTER}
        as_values = {p.source(p.x) for p in self.passes if p.opcode in (Opcode.FORWARD, Opcode.OUTER)}
        as_values |= {p.source(n) for p in self.passes for n in (p.q, p.r)} | self.wanted
        arranged: list[Pass] = []
        for made in self.passes:
            arranged.append(made)
            if not made.result:
                continue
            made.rows, made.value = made.result in as_rows, made.result in as_values
            pure = not made.maximum if made.opcode == Opcode.UNITS else not made.value
            if made.rows and (made.opcode == Opcode.TRANSPOSED or not pure):
                made.rows, made.value = False, True  # a sweep reads row operands, or writes them, or keeps vectors
                arranged.append(self._copy(made.result, self.flow.lengths[made.result]))
        states = [self._copy(s, self.flow.lengths[s]) for s in self.states if s in as_rows]
        for name in sorted((self.given - {DELTA}) & as_rows):  # a cost leaves its own as row operands
            first = next(i for i, p in enumerate(arranged) if name in (p.x, p.t))
            arranged.insert(first, self._copy(name, self.flow.lengths[name]))
        self.passes = states + arranged

    def _copy(self, name: str, length: int) -> Pass:
        """A vector as row operands."""
        return Pass(Opcode.UNITS, length, q=name, expr=var(name), result=name, rows=True)

    def drifting(self) -> list[Pass]:
        """A state moves in its last kick if nothing reads its position later, else behind everything."""
        self.run()
        for state in self.states:
            last = max((i for i, p in enumerate(self.passes) if p.state == state), default=-1)
            later = self.passes[last + 1:]
            read = any(state in (p.source(p.x), p.source(p.q), p.source(p.r)) and not (p.state == state) for p in later)
            if last >= 0 and not read and self._drifts(self.passes[last]):
                self.passes[last].drift = True
            else:
                self.passes.append(Pass(Opcode.UNITS, self.flow.lengths[state], q=state, state=state, drift=True))
        return self.passes

    @staticmethod
    def _drifts(made: Pass) -> bool:
        """Whether the state can move in its kick: read itself, and no other element of it."""
        return made.q == made.state and all(g.x != made.state for g in made.gathers)
