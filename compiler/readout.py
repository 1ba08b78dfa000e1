"""The readout y that a cost and predict share, and the cost over it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from echolith.compiler.canonical import split, summands
from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Bias, Index, Reduce, Sum, Term
from echolith.compiler.ir import Expr, var
from echolith.compiler.ops import div, sub
from echolith.compiler.site import Site
from echolith.compiler.values import Nodes, Store

__all__ = ["Prediction", "Readout", "find_readout", "predicted"]


@dataclass(frozen=True)
class Readout:
    """y as a form over states and nodes, and the cost over it."""

    form: Affine | None
    cost_nodes: dict[str, Reduce] = field(default_factory=dict)
    cost: tuple[Sum, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """What predict returns: ``slope * vector + offset``, the vector by name."""

    vector: str
    slope: float
    offset: float
    form: Affine | None  # None: the one state as it is


def predicted(site: Site, nodes: Nodes, expr: Expr, outputs: int, store: Store, states: int) -> Prediction:
    """The canonical ``expr`` as a prediction; refuses what is not affine in element-wise functions of the states."""
    if site.shape != (outputs,):
        raise site.refuse("predict disagrees with outputs", f"return shape {(outputs,)}", f"shape {site.shape}")
    parts = summands(expr)
    offset = sum(c for e, c in parts if e.op == "const")
    vectors = [(e, c) for e, c in parts if e.op != "const"]
    local = all(not names(e) & set(nodes.nodes) and nodes.given(e) for e, _ in vectors)
    if not (len(vectors) == 1 and vectors[0][0].op == "var") and not (vectors and local):
        raise site.refuse("predict is not affine in the states", "return R f(q) + b", site.operator)
    if len(vectors) == 1 and vectors[0][0].op == "var":
        leaf, slope = vectors[0]
    else:
        terms = tuple(Term(Index(tuple(range(outputs))), e, c) for e, c in vectors)
        leaf, slope = nodes.add(Affine(outputs, terms)), 1.0
    if leaf.name not in nodes.nodes and states == 1 and (slope, offset) == (1, 0):
        return Prediction(leaf.name, 1.0, 0.0, None)
    form = _form(nodes, leaf.name)
    biases = tuple(replace(b, scale=b.scale * slope) for b in form.biases)
    if offset:
        biases += (Bias(store.constant(np.full(outputs, offset))),)
    form = Affine(outputs, tuple(replace(t, scale=t.scale * slope) for t in form.terms), biases)
    return Prediction(leaf.name, slope, offset, form)


def _form(nodes: Nodes, name: str) -> Affine:
    """A vector as an affine form."""
    node = nodes.nodes.get(name)
    if isinstance(node, Affine):
        return node
    length = nodes.lengths[name]
    return Affine(length, (Term(Index(tuple(range(length))), var(name)),))


def find_readout(site: Site, nodes: Nodes, expr: Expr, predict: Prediction | None, outputs: int, learned: frozenset[str]
                 ) -> Readout:  # fmt: skip
    """The readout that the cost ``expr`` uses, and the cost over y and target."""
    vectors = sorted(_vectors(nodes, expr) - {"target"})
    for name in vectors:
        if "target" in nodes.given(var(name)):
            raise site.refuse("targets are moved or multiplied by a matrix", "store them as the cost uses them", name)
    if not vectors:
        raise site.refuse("the cost does not depend on the states", "use q or a readout of it", "target")
    if len(vectors) > 1:
        kinds = " and ".join(f"[{_text(nodes, name)}]" for name in vectors)
        raise site.refuse("the cost uses more than one readout", "compute one y = R q + b and use only y", kinds)
    name = vectors[0]
    if nodes.lengths[name] != outputs:
        found = f"{nodes.lengths[name]} values"
        raise site.refuse("the cost disagrees with outputs", f"compare y with {outputs} outputs", found)
    if predict is not None and predict.vector != name:
        raise site.refuse(
            "cost and predict use different readouts", f"use [{_text(nodes, name)}] in both",
            f"[{_text(nodes, predict.vector)}]",
        )  # fmt: skip
    y: Expr = var("y")
    if predict is not None:
        y = div(sub(y, predict.offset), predict.slope)
    renamed = _Cost(nodes, name, y, outputs)
    terms = split(renamed.nodes, renamed.expr(expr), apart=False)
    used = _live(renamed.nodes, terms)
    if extra := sorted(_parameters(terms, used) & learned):
        raise site.refuse("the cost uses parameters besides the readout", "put them in y = R q + b", extra)
    form = predict.form if predict is not None and predict.form is not None else _form(nodes, name)
    return Readout(form, used, terms)


def _vectors(nodes: Nodes, expr: Expr) -> set[str]:
    """Names of the vectors that ``expr`` uses, directly or in a reduction."""
    found: set[str] = set()
    for name in names(expr) & set(nodes.lengths):
        node = nodes.nodes.get(name)
        found |= _vectors(nodes, node.expr) if isinstance(node, Reduce) else {name}
    return found


class _Cost:
    """The cost's expressions over y, with its own reductions."""

    def __init__(self, nodes: Nodes, name: str, y: Expr, outputs: int):
        self.old, self.replaced = nodes, {name: y}
        self.nodes = Nodes({"y": outputs, "target": outputs}, "c")

    def expr(self, expr: Expr) -> Expr:
        for name in sorted(names(expr) & set(self.old.nodes)):
            node = self.old.nodes[name]
            if isinstance(node, Reduce) and name not in self.replaced:
                self.replaced[name] = self.nodes.add(replace(node, expr=self.expr(node.expr)))
        return substitute(expr, self.replaced)


def _live(nodes: Nodes, terms: tuple[Sum, ...]) -> dict[str, Reduce]:
    used: set[str] = set().union(*(names(t.expr) for t in terms))
    found: dict[str, Reduce] = {}
    for name, node in reversed(nodes.nodes.items()):
        if name in used and isinstance(node, Reduce):
            found[name] = node
            used |= names(node.expr)
    return dict(reversed(found.items()))


def _parameters(terms: tuple[Sum, ...], nodes: Mapping[str, Reduce]) -> set[str]:
    return set().union(*(names(t.expr) for t in terms), *(names(n.expr) for n in nodes.values()))


def _text(nodes: Nodes, name: str) -> str:
    """A vector for an error message."""
    node = nodes.nodes.get(name)
    if not isinstance(node, Affine):
        return name
    scaled = [(t.scale, f"{getattr(t.matrix, 'parameter', 'index')} {t.source}") for t in node.terms]
    scaled += [(b.scale, b.parameter) for b in node.biases]
    return " + ".join(text if scale == 1 else f"{scale:g} {text}" for scale, text in scaled)
