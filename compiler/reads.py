"""A read-out that is more than a matrix times the states: passes that compute y, and those that bring its derivative
back to the states and to its own parameters.

    y = f(q)            passes before every read-out; the readout block is 1, so that the cost sees y
    e = -2 dcost/dy     what the cost leaves as row operands, as a vector
    e' df/dq            the nudge, but for its factor; e' df/dparameter: the gradients

They are the force and the updates of the energy e' f(q), derived and selected as those of any energy. Everything is
computed at copy 0, where two samples are side by side, so their contributions are added and not subtracted. The factor
makes them what the contrast of two echoes is, so that a parameter may be in the energy too: both add to one word.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Convolution, Dense, Graph, Index, Reduce, Sum, Term
from echolith.compiler.ir import Expr, const, var
from echolith.compiler.isa import Opcode
from echolith.compiler.layout import overlap
from echolith.compiler.ops import intern, mul
from echolith.compiler.reading import derive_reading
from echolith.compiler.select import Pass, select_reading
from echolith.compiler.steps import DELTA, ERROR, LANES, OUTPUT, SLOPE, Flow, Matrix, window

__all__ = ["EYE", "FULL", "NUDGES", "Reading", "joined", "laned", "parted", "reading", "renamed", "simple"]

EYE = "out:1"  # of the readout block
NUDGES = "out:nudges"  # these row operands; with a state, those of one

FULL = 16.0  # full scale of the row operands that a cost leaves, see `calibrate.ERRORS`
_PREFIX = "out:"


@dataclass(frozen=True)
class Reading:
    """``graph`` has the energy e' f; passes before a read-out and those behind its cost, none without learning."""

    graph: Graph
    forward: tuple[Pass, ...]
    backward: tuple[Pass, ...]
    weaker: int = 0  # bits by which ranging found the nudges too strong

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (*self.forward, *self.backward)


def simple(graph: Graph) -> bool:
    """Whether the readout is R q + b, of words that nothing else has."""
    form = graph.readout
    if form is None:
        return True
    if any(t.source not in map(var, graph.states) for t in form.terms):
        return False
    if any(isinstance(t.matrix, Convolution) and t.matrix.parameter in graph.learned for t in form.terms):
        return False
    own = _words(graph, (form,))
    others = [*_words(graph, (n for n in graph.nodes.values() if isinstance(n, Affine))),
              *((name, ()) for name in _inside(graph))]
    pairs = [(a, b) for i, a in enumerate(own) for b in own[i + 1:] + others]
    return not any(a[0] == b[0] and overlap(a[1], b[1]) for a, b in pairs) and _alike(graph, form)


def _words(graph: Graph, forms: Iterable[Affine]) -> list[tuple[str, tuple[int, ...]]]:
    """Parameters and windows of matrices and biases."""
    found: list[tuple[str, tuple[int, ...]]] = []
    for form in forms:
        for t in form.terms:
            if isinstance(t.matrix, Dense):
                found.append((t.matrix.parameter, window(t.matrix, graph.values[t.matrix.parameter].shape)))
            elif isinstance(t.matrix, Convolution) and t.matrix.parameter in graph.learned:
                found.append((t.matrix.parameter, ()))
        found += [(b.parameter, ()) for b in form.biases]
    return found


def _inside(graph: Graph) -> frozenset[str]:
    """Parameters of element-wise functions."""
    exprs = [t.expr for t in graph.energy] + list(graph.kinetic.values())
    exprs += [e for n in graph.nodes.values() for e in _sources(n)]
    return frozenset().union(*map(names, exprs)) & set(graph.values)


def _alike(graph: Graph, form: Affine) -> bool:
    """Whether parameters that share columns of the block have one factor."""
    groups = [[t.scale for t in form.terms if t.source == var(s)] for s in graph.states]
    return all(len(set(g)) <= 1 for g in (*groups, [b.scale for b in form.biases]))


def _sources(node: Affine | Reduce) -> list[Expr]:
    return [t.source for t in node.terms] if isinstance(node, Affine) else [node.expr]


def joined(graph: Graph) -> Graph:
    """The graph with e' y as the last term of the energy, for the passes that prepare it; e is one state more."""
    form = graph.readout
    assert form is not None
    nodes = dict(graph.nodes)
    if len(form.terms) == 1 and _whole(graph, form) and not form.biases:
        y = mul(form.terms[0].scale, form.terms[0].source)
    else:
        name = f"{_PREFIX}z"
        nodes[name], y = form, var(name)
    term = Sum(mul(var(ERROR), y), form.length)
    return replace(graph, states={**graph.states, ERROR: form.length}, nodes=nodes, energy=(*graph.energy, term))


def _whole(graph: Graph, form: Affine) -> bool:
    """Whether a form of one term is its source."""
    (term,) = form.terms
    nodes = {n: x.length if isinstance(x, Affine) else 1 for n, x in graph.nodes.items()}
    lengths = {n: v.size for n, v in graph.values.items()} | graph.states | nodes
    columns = max(lengths[n] for n in names(term.source))
    return term.matrix == Index(tuple(range(form.length))) and columns == form.length


def parted(graph: Graph) -> tuple[Graph, Graph]:
    """A joined graph's energy, reading out its vector y, and its read-out."""
    states = {s: n for s, n in graph.states.items() if s != ERROR}
    outputs = graph.states[ERROR]
    y = Affine(outputs, (Term(Dense(EYE), intern(var(OUTPUT))),))
    values = graph.values | {EYE: np.eye(outputs)}
    energy = replace(graph, states=states, nodes=_live(graph, graph.energy[:-1]), energy=graph.energy[:-1], readout=y,
                     values=values)
    nodes = _live(graph, graph.energy[-1:])
    renamed = {name: intern(var(name if name.startswith(_PREFIX) else f"{_PREFIX}{name}")) for name in nodes}
    term = replace(graph.energy[-1], expr=substitute(graph.energy[-1].expr, renamed))
    found = {renamed[name].name: _renamed(node, renamed) for name, node in nodes.items()}
    return energy, replace(graph, nodes=found, energy=(term,), readout=None, values=values)


def _live(graph: Graph, energy: tuple[Sum, ...]) -> dict[str, Affine | Reduce]:
    used: frozenset[str] = frozenset().union(*(names(t.expr) for t in energy))
    for name, node in reversed(graph.nodes.items()):
        if name in used:
            used = used.union(*map(names, _sources(node)))
    return {name: node for name, node in graph.nodes.items() if name in used}


def _renamed(node: Affine | Reduce, renamed: dict[str, Expr]) -> Affine | Reduce:
    if isinstance(node, Reduce):
        return replace(node, expr=substitute(node.expr, renamed))
    return replace(node, terms=tuple(replace(t, source=substitute(t.source, renamed)) for t in node.terms))


def renamed(graph: Graph) -> Graph:
    """With names of nodes that no energy has."""
    changed = {name: intern(var(f"{_PREFIX}{name}")) for name in graph.nodes}
    energy = tuple(replace(t, expr=substitute(t.expr, changed)) for t in graph.energy)
    nodes = {changed[name].name: _renamed(node, changed) for name, node in graph.nodes.items()}
    return replace(graph, nodes=nodes, energy=energy)


def reading(graph: Graph, dt: float, learn: bool, first: Flow) -> Reading:
    """Passes of a read-out's graph; its blocks join ``first``, the energy's flow."""
    states = {s: n for s, n in graph.states.items() if s != ERROR}
    outputs = graph.states[ERROR]
    first.lengths |= {DELTA: outputs}
    first.values |= {EYE: np.eye(outputs)}
    flow = derive_reading(graph, dt, learn, first)
    first.matrices["readout"] = Matrix(EYE, False)
    slopes = {s: f"{SLOPE}{s}" for s in states if f"{SLOPE}{s}" in flow.lengths}
    passes = select_reading(flow, tuple(states), frozenset((DELTA,)), frozenset((OUTPUT, *slopes.values())))
    end = 1 + next(i for i, p in enumerate(passes) if p.result == OUTPUT)
    return Reading(graph, tuple(passes[:end]), (*passes[end:], *_nudges(flow, states, slopes)) if learn else ())


def laned(flow: Flow, lanes: int) -> Flow:
    """The flow with the matrix that brings nudges from so many lanes to the states."""
    return replace(flow, values={**flow.values, LANES: np.eye(lanes)})


def _nudges(flow: Flow, states: dict[str, int], slopes: dict[str, str]) -> list[Pass]:
    """The slopes of all states side by side, then as row operands."""
    total = flow.lengths[NUDGES] = sum(states.values())
    if len(states) == 1:
        (source,) = slopes.values()
        return [Pass(Opcode.UNITS, total, q=source, expr=var(source), result=NUDGES, rows=True)]
    found: list[Pass] = []
    for state, units in states.items():
        flow.lengths[f"{NUDGES}:{state}"] = units
        source = slopes.get(state, "")
        found.append(Pass(Opcode.UNITS, units, q=source, expr=var(source) if source else const(0),
                          result=f"{NUDGES}:{state}", value=True))
    whole, parts = f"{NUDGES}:", tuple(p.result for p in found)
    flow.lengths[whole] = total
    return [*found, Pass(Opcode.UNITS, total, q=whole, expr=var(whole), result=NUDGES, rows=True, parts=parts)]
