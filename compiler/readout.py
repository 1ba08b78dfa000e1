"""The readout y that a cost and predict share, and the cost over it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from echolith.compiler.canonical import split, summands
from echolith.compiler.costs import cost
from echolith.compiler.differentiate import exchanged, names, substitute
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Affine, Bias, Graph, Index, Reduce, Sum, Term
from echolith.compiler.ir import Expr, var
from echolith.compiler.ops import div, sub
from echolith.compiler.site import Site
from echolith.compiler.values import Nodes, Store

__all__ = ["Prediction", "Readout", "find_readout", "predicted"]

_PART = "out:part"


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
    expr: Expr | None = None  # that the vector stands for, which is in no other node


def predicted(site: Site, nodes: Nodes, expr: Expr, outputs: int, store: Store, states: int) -> Prediction:
    """The canonical ``expr`` as a prediction."""
    if site.shape != (outputs,):
        raise site.refuse("predict disagrees with outputs", f"return shape {(outputs,)}", f"shape {site.shape}")
    if not nodes.given(expr):
        raise site.refuse("predict does not depend on the states", "use q or a readout of it", site.operator)
    parts = summands(expr)
    offset = sum(c for e, c in parts if e.op == "const")
    vectors = [(e, c) for e, c in parts if e.op != "const"]
    if len(vectors) != 1 or vectors[0][0].op != "var" or nodes.lengths[vectors[0][0].name] != outputs:
        form = Affine(outputs, (Term(Index(tuple(range(outputs))), expr),))
        return Prediction(nodes.add(form).name, 1.0, 0.0, form, expr)
    leaf, slope = vectors[0]
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


def find_readout(site: Site, nodes: Nodes, expr: Expr, predict: Prediction | None, outputs: int, store: Store,
                 classes: bool) -> Readout:  # fmt: skip
    """The readout that the cost ``expr`` uses, and the cost over y and target.

    Without predict it is a part of the cost that has all states and learned parameters and leaves a cost that the chip
    computes."""
    vectors = sorted(_vectors(nodes, expr) - {"target"})
    for name in vectors:
        if "target" in nodes.given(var(name)):
            raise site.refuse("targets are moved or multiplied by a matrix", "store them as the cost uses them", name)
    if not vectors:
        raise site.refuse("the cost does not depend on the states", "use q or a readout of it", "target")
    if predict is not None:
        found = _over(nodes, expr, predict.expr or var(predict.vector), outputs, predict)
        if _strange(nodes, found):
            raise _different(site, nodes, vectors, predict)
    else:
        found = _chosen(site, nodes, expr, outputs, store, classes)
    if found is None or _strange(nodes, found):
        raise _unread(site, nodes, vectors, outputs)
    if extra := sorted(_parameters(found.cost, found.cost_nodes) & store.learned):
        raise site.refuse("the cost uses parameters besides the readout", "put them in y = f(q)", extra)
    return found


def _different(site: Site, nodes: Nodes, vectors: list[str], predict: Prediction) -> CompileError:
    used = " and ".join(f"[{_text(nodes, name)}]" for name in vectors)
    own = str(predict.expr) if predict.expr is not None else _text(nodes, predict.vector)
    return site.refuse("cost and predict use different readouts", f"use {used} in both", f"[{own}]")


def _unread(site: Site, nodes: Nodes, vectors: list[str], outputs: int) -> CompileError:
    """That no part of the cost is a readout."""
    if len(vectors) > 1:
        kinds = " and ".join(f"[{_text(nodes, name)}]" for name in vectors)
        return site.refuse("the cost uses more than one readout", "compute one y = f(q) and use only y", kinds)
    found = f"{nodes.lengths[vectors[0]]} values"
    return site.refuse("the cost disagrees with outputs", f"compare y with {outputs} outputs", found)


def _chosen(site: Site, nodes: Nodes, expr: Expr, outputs: int, store: Store, classes: bool) -> Readout | None:
    """A vector that will do, else what leaves the shortest cost, without a reduction (log_softmax) if the cost may have
    it; else the first that has all states."""
    first: Readout | None = None
    tried = [(part, _over(nodes, expr, part, outputs, None)) for part in _parts(nodes, expr, outputs)]
    for _, found in sorted(tried, key=lambda pair: (pair[0].op != "var", _reduces(nodes, pair[0]), _size(pair[1]),
                                                    str(pair[0]))):
        if _strange(nodes, found):
            continue
        first = first or found
        if not _parameters(found.cost, found.cost_nodes) & store.learned and _built(found, outputs, store, classes):
            return found
    return first


def _parts(nodes: Nodes, expr: Expr, outputs: int) -> set[Expr]:
    """Vectors of outputs elements that depend on states and not on targets."""
    found: set[Expr] = set()
    node = nodes.nodes.get(expr.name) if expr.op == "var" else None
    for arg in (*expr.args, *((node.expr,) if isinstance(node, Reduce) else ())):
        found |= _parts(nodes, arg, outputs)
    given = nodes.given(expr)
    wide = any(nodes.lengths.get(n) == outputs for n in names(expr))
    return found | {expr} if given and "target" not in given and wide else found


def _reduces(nodes: Nodes, part: Expr) -> bool:
    return any(isinstance(nodes.nodes.get(name), Reduce) for name in names(part))


def _size(found: Readout) -> int:
    return sum(len(str(t.expr)) for t in found.cost) + sum(len(str(n.expr)) for n in found.cost_nodes.values())


def _built(found: Readout, outputs: int, store: Store, classes: bool) -> bool:
    """Whether the chip computes the cost."""
    try:
        cost(Graph({}, 1, outputs, {}, {}, (), None, found.cost_nodes, found.cost, classes, store.values))
    except CompileError:
        return False
    return True


def _over(nodes: Nodes, expr: Expr, part: Expr, outputs: int, predict: Prediction | None) -> Readout:
    """The cost with y in place of ``part``."""
    y: Expr = var("y")
    if predict is not None:
        y = div(sub(y, predict.offset), predict.slope)
    renamed = _Cost(nodes, part, y, outputs)
    terms = split(renamed.nodes, renamed.expr(expr), apart=False)
    if predict is not None and predict.form is not None:
        form = predict.form
    elif part.op == "var":
        form = _form(nodes, part.name)
    else:
        form = Affine(outputs, (Term(Index(tuple(range(outputs))), part),))
    return Readout(form, _live(renamed.nodes, terms), terms)


def _strange(nodes: Nodes, found: Readout) -> bool:
    """Whether other vectors are left in a cost."""
    return bool(_parameters(found.cost, found.cost_nodes) & (nodes.lengths.keys() - {"y", "target"}))


def _vectors(nodes: Nodes, expr: Expr) -> set[str]:
    """Names of the vectors that ``expr`` uses, directly or in a reduction."""
    found: set[str] = set()
    for name in names(expr) & set(nodes.lengths):
        node = nodes.nodes.get(name)
        found |= _vectors(nodes, node.expr) if isinstance(node, Reduce) else {name}
    return found


class _Cost:
    """The cost's expressions over y, with its own reductions."""

    def __init__(self, nodes: Nodes, part: Expr, y: Expr, outputs: int):
        self.old, self.part, self.y = nodes, part, y
        self.replaced: dict[str, Expr] = {}
        self.nodes = Nodes({"y": outputs, "target": outputs}, "c")

    def expr(self, expr: Expr) -> Expr:
        expr = substitute(exchanged(expr, self.part, var(_PART)), {_PART: self.y})
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
