"""A graph in words: the energy as understood, every force, every local update."""

from functools import reduce

from echolith.compiler.costs import LEVEL, Cost, slope
from echolith.compiler.differentiate import derivative, names, substitute
from echolith.compiler.flow import derive
from echolith.compiler.graph import Affine, Dense, Graph, Index, Reduce, Term
from echolith.compiler.ir import Expr, var
from echolith.compiler.ops import add, mul, power
from echolith.compiler.prune import parameters
from echolith.compiler.steps import (
    ERROR,
    Accumulate,
    Drive,
    Flow,
    Gather,
    Kick,
    Linear,
    Map,
    Maximum,
    Outer,
    error,
    window_text,
)

__all__ = ["describe"]

Lines = list[list[str]]
_PLAIN = mul(0.5, power(var("p"), 2))  # the kinetic energy that goes without saying


def describe(graph: Graph, cost: Cost | None, learn: bool, reading: Graph | None = None, joins: Graph | None = None
             ) -> dict[str, Lines]:
    """(label, text) lines by section: ``energy`` and ``derived``. Without dt: these are the mathematics. ``reading`` is
    the graph of a read-out with passes of its own, ``joins`` that of what lies between the layers of a stack."""
    energy: Lines = [["V", " + ".join(f"sum {_bare(e.expr)}" for e in graph.energy) or "0"]]
    energy += [[name, _node(node)] for name, node in graph.nodes.items()]
    energy += [[f"T of {s}" if len(graph.states) > 1 else "T", f"sum {_bare(e)}"] for s, e in graph.kinetic.items()
               if e != _PLAIN]
    energy += _joins(joins) if joins is not None else []
    if reading is not None:
        energy += [[_read(name), _read(_node(node))] for name, node in reading.nodes.items()
                   if _read(name) not in graph.nodes]
        energy.append(["y", _read(_bare(derivative(reading.energy[0].expr, ERROR)))])
    elif graph.readout is not None:
        energy.append(["y", _affine(graph.readout)])
    if cost is not None:
        energy.append(["cost", f"sum {_bare(_plain(cost.expr))}"])
        if cost.inside is not None:
            energy.append(["level", f"logsumexp {cost.inside}"])
    derived = _derived(graph, cost if learn else None, reading)
    if joins is not None and learn:
        own = sorted(parameters(joins) & graph.learned)
        derived += [[f"d{name}", f"contrasts of errors, d({', '.join(joins.fed)})/d{name}"] for name in own]
    return {"energy": energy, "derived": derived}


def _joins(graph: Graph) -> Lines:
    """What layers are fed."""
    lines = []
    for name, node in graph.nodes.items():  # `inlets` are what layers are fed
        lines.append([_fed(name) if _fed(name) in graph.fed else _between(name), _between(_node(node))])
    for name in graph.fed:
        found = reduce(add, (derivative(t.expr, error(name)) for t in graph.energy))
        if _fed(found.name) != name:
            lines.append([name, _between(_bare(found))])
    return lines


def _fed(name: str) -> str:
    return name.removeprefix("out:")


def _between(text: str) -> str:
    return text.replace("out:", "f:")


def _node(node: Affine | Reduce) -> str:
    return _affine(node) if isinstance(node, Affine) else f"{node.kind} {node.expr}"


def _read(text: str) -> str:
    return text.replace("out:", "")


def _affine(form: Affine | Drive) -> str:
    parts = [_scaled(t.scale, f"{_matrix(t.matrix)} {_source(t)}".strip()) for t in form.terms]
    return " + ".join(parts + [_scaled(b.scale, b.parameter) for b in form.biases])


def _matrix(matrix: object) -> str:
    if isinstance(matrix, Dense):
        return matrix.parameter + window_text(matrix) + "'" * matrix.transposed
    return "gather" if isinstance(matrix, Index) else getattr(matrix, "parameter", "?")


def _source(term: Term) -> str:
    piece = term.matrix.within if isinstance(term.matrix, Dense) else None
    return f"{term.source}[{piece[0]}:{piece[1]}]" if piece else str(term.source)


def _scaled(scale: float, text: str) -> str:
    return text if scale == 1 else f"{scale:g} {text}"


def _bare(expr: Expr) -> str:
    """Without the outermost parentheses of a product or quotient."""
    text = str(expr)
    return text[1:-1] if text.startswith("(") and text.endswith(")") else text


def _plain(expr: Expr) -> Expr:
    return substitute(expr, {LEVEL: var("level")})


def _derived(graph: Graph, cost: Cost | None, reading: Graph | None) -> Lines:
    flow = derive(graph, 1.0, cost is not None)
    known = {s.name: var(_sum(s, flow)) for s in flow.steps if isinstance(s, Linear | Gather)}
    labels = {f"{name}_t": f"dV/d{name}" for name in graph.nodes}

    def text(expr: Expr) -> str:
        return _bare(substitute(expr, known))

    lines: Lines = []
    for step in flow.steps:
        if isinstance(step, Map) and step.name not in graph.nodes:
            lines.append([labels.get(step.name, step.name), text(step.expr)])
        elif isinstance(step, Maximum):
            lines.append([step.name, f"max {text(step.expr)}"])
        elif isinstance(step, Kick):
            lines.append([f"dV/d{step.state}", text(step.expr)])
        elif isinstance(step, Outer):
            lines += _update(graph, flow, step)
        elif isinstance(step, Accumulate):
            lines.append([f"d{step.parameter}", f"contrast of {text(step.expr)}"])
    for state, expr in graph.kinetic.items() if cost is not None else ():
        lines += [[f"d{n}", f"contrast of {_bare(derivative(expr, n))} of {state}"]
                  for n in sorted(names(expr) & graph.learned)]
    kicked = {k.state for k in flow.steps if isinstance(k, Kick)}
    lines += [[f"dV/d{s}", "0"] for s in graph.states if s not in kicked]
    if cost is not None:
        lines.append(["dcost/dy", _bare(_plain(slope(cost)))])
        if reading is not None:
            own = sorted(parameters(reading) & graph.learned)
            return lines + [[f"d{name}", f"dcost/dy dy/d{name}"] for name in own]
        assert graph.readout is not None
        for t in graph.readout.terms:
            if isinstance(t.matrix, Dense) and t.matrix.parameter in graph.learned:
                lines.append([f"d{t.matrix.parameter}", _scaled(t.scale, f"dcost/dy {t.source}'")])
        lines += [[f"d{b.parameter}", _scaled(b.scale, "dcost/dy")] for b in graph.readout.biases
                  if b.parameter in graph.learned]
    return lines


def _name(vector: str) -> str:
    return f"dV/d{vector.removesuffix('_t')}" if vector.endswith("_t") else vector


def _sum(step: Linear | Gather, flow: Flow) -> str:
    if isinstance(step, Gather):
        return f"gather {_name(step.x)}"
    if step.matrix in flow.drives:
        return _affine(flow.drives[step.matrix])
    matrix = f"{step.matrix}'" if step.backward else step.matrix
    drive = f" + {_affine(flow.drives[step.drive])}" if step.drive else ""
    return f"{matrix.replace(chr(39) * 2, '')} {_name(step.x)}{drive}"


def _update(graph: Graph, flow: Flow, step: Outer) -> Lines:
    signal = f"contrast of {_name(step.rows)}"
    if step.matrix in flow.drives:
        drive = flow.drives[step.matrix]
        found = [[f"d{t.matrix.parameter}", _scaled(t.scale, f"{signal} {_source(t)}'")] for t in drive.terms
                 if isinstance(t.matrix, Dense) and t.matrix.parameter in graph.learned]
        return found + [[f"d{b.parameter}", _scaled(b.scale, signal)] for b in drive.biases
                        if b.parameter in graph.learned]
    return [[f"d{flow.matrices[step.matrix].parameter}", f"{signal} {_name(step.columns)}'"]]
