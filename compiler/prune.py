"""A graph without the nodes and values that nothing uses, its nodes numbered in order."""

from collections.abc import Iterable
from dataclasses import replace

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Graph, Index, Reduce
from echolith.compiler.ir import Expr, var

__all__ = ["parameters", "prune"]


def prune(graph: Graph) -> Graph:
    roots = [t.expr for t in graph.energy] + (_sources(graph.readout) if graph.readout else [])
    used: set[str] = set().union(*map(names, roots))
    live: list[str] = []
    for name in reversed(graph.nodes):
        if name in used:
            live.append(name)
            used |= set().union(*map(names, _sources(graph.nodes[name])))
    renamed: dict[str, Expr] = {old: var(f"z{i}") for i, old in enumerate(reversed(live))}
    nodes = {renamed[old].name: _renamed(graph.nodes[old], renamed) for old in reversed(live)}
    readout = graph.readout and _renamed(graph.readout, renamed)
    energy = tuple(replace(t, expr=substitute(t.expr, renamed)) for t in graph.energy)
    found = replace(graph, nodes=nodes, energy=energy, readout=readout)
    kept = parameters(found)
    for made in reversed(graph.derived):  # a function stands after those that it is of
        if made.name in kept:
            kept |= {o.parameter for o in made.operands.values()}
    derived = tuple(d for d in graph.derived if d.name in kept)
    values = {name: value for name, value in graph.values.items() if name in kept}
    return replace(found, values=values, learned=graph.learned & frozenset(kept), derived=derived)


def _sources(node: Affine | Reduce) -> list[Expr]:
    return [t.source for t in node.terms] if isinstance(node, Affine) else [node.expr]


def _renamed(node, renamed: dict[str, Expr]):
    if isinstance(node, Reduce):
        return replace(node, expr=substitute(node.expr, renamed))
    return replace(node, terms=tuple(replace(t, source=substitute(t.source, renamed)) for t in node.terms))


def parameters(graph: Graph) -> set[str]:
    """Names of those that anything uses."""
    forms: Iterable[Affine | Reduce] = [*graph.nodes.values(), *([graph.readout] if graph.readout else [])]
    found = set().union(*map(names, graph.kinetic.values()), *(names(t.expr) for t in graph.energy + graph.cost))
    found |= set().union(*(names(n.expr) for n in graph.cost_nodes.values()))
    for form in forms:
        found |= set().union(*map(names, _sources(form)))
        if isinstance(form, Affine):
            found |= {b.parameter for b in form.biases}
            found |= {t.matrix.parameter for t in form.terms if not isinstance(t.matrix, Index)}
    return found
