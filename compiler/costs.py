"""The cost of one output on the chip: a function of y, its target and, for a softmax, the level of all outputs.

    cost  = sum_i f(y_i, target_i, level),   level = logsumexp_i g(y_i)
    dcost/dy_i = df/dy_i + k exp(g(y_i) - level) g'(y_i),   k = sum_i df/dlevel

k must be a number on the chip: it is where level enters f alone or times the target, and targets are classes or shares
that sum to 1.
"""

from dataclasses import dataclass

import numpy as np

from echolith.compiler.differentiate import derivative, evaluate, names, substitute
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Graph
from echolith.compiler.ir import Expr, const, var
from echolith.compiler.isa import Opcode
from echolith.compiler.ops import add, mul
from echolith.compiler.reductions import below_one, logarithm
from echolith.compiler.select import Pass
from echolith.compiler.steps import ONE, Flow, Matrix

__all__ = ["KEPT", "LEVEL", "LEVELS", "WEIGHED", "WEIGHT", "WEIGHTS", "Cost", "cost", "encoded", "levels", "sampled",
           "slope"]

# A user's names have no colon.
WEIGHT = "cost:weight"  # a frozen number of every output
WEIGHTS = "cost:weights"  # as a matrix of one column
WEIGHED = "cost:kept"  # its sums: WEIGHT, kept once per output
LEVEL = "softmax:level"
LEVELS = "softmax:levels"  # as it is kept, once per output
KEPT = "softmax:kept"  # the ones that take it there


@dataclass(frozen=True)
class Cost:
    """``expr`` of one output over y, target, level and weight; ``inside`` is g, None without a softmax. ``share`` is k.
    ``weights`` are those of all outputs, none if there are no different ones.

    ``targets``: "values", "classes" (whole numbers, one-hot on the chip), or "shares" that sum to 1."""

    expr: Expr
    inside: Expr | None = None
    share: float = 0.0
    targets: str = "values"
    weights: tuple[float, ...] = ()

    def given(self, y: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
        """What ``expr`` is over, for outputs and targets (..., outputs)."""
        found = {"y": y, "target": target}
        if self.inside is not None:
            found[LEVEL] = _level(np.broadcast_to(evaluate(self.inside, {"y": y}), y.shape))
        return found | ({WEIGHT: np.array(self.weights)} if self.weights else {})

    def __call__(self, y: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Costs of all outputs, which are on the last axis."""
        return np.broadcast_to(evaluate(self.expr, self.given(y, target)), y.shape)


def cost(graph: Graph) -> Cost | None:
    """What the chip computes of a graph's cost; None without one. Raises CompileError for what it cannot."""
    if not graph.cost:
        return None
    kind = "classes" if graph.classes else "values"
    total: Expr = const(0)
    for part in graph.cost:
        if part.length not in (1, graph.outputs):
            raise CompileError(f"cost: must be a sum over the {graph.outputs} outputs, not over {part.length} values")
        total = add(total, part.expr if part.length == graph.outputs else mul(1 / graph.outputs, part.expr))
    total, weights = _weighed(total, graph)
    if not graph.cost_nodes:
        return Cost(total, targets=kind, weights=weights)
    (name, node), *others = graph.cost_nodes.items()
    if others or node.kind != "logsumexp" or names(node.expr) != {"y"}:
        raise CompileError("cost: of reductions over the outputs, one logsumexp of a function of y (softmax "
                           "cross-entropy) is built on the chip; use that, or a cost per output, as is a margin "
                           "relu(1 - (2 * y - 1) * z) of every class, not "
                           f"{', '.join(n.kind for n in graph.cost_nodes.values())}")
    total = substitute(total, {name: var(LEVEL)})
    share, kind = _share(derivative(total, LEVEL), graph)
    return Cost(total, node.expr, share, kind)


def _weighed(total: Expr, graph: Graph) -> tuple[Expr, tuple[float, ...]]:
    """The cost over WEIGHT, and its values."""
    others = sorted(names(total) - {"y", "target", *graph.cost_nodes})
    if not others:
        return total, ()
    if graph.cost_nodes:
        raise CompileError("cost: weights of outputs beside a reduction over the outputs are not built on the chip; "
                           "let predict return all of it, e.g. log_softmax(R q), and weigh that, not "
                           f"{', '.join(others)} beside {', '.join(n.kind for n in graph.cost_nodes.values())}")
    if len(others) > 1:
        raise CompileError("cost: one vector of numbers per output is built on the chip; write several as one, e.g. "
                           f"as their product, not {', '.join(others)}")
    values = np.asarray(graph.values[others[0]], np.float64).reshape(-1)
    return substitute(total, {others[0]: var(WEIGHT)}), tuple(np.broadcast_to(values, graph.outputs).tolist())


def _share(expr: Expr, graph: Graph) -> tuple[float, str]:
    """k and what the targets must be for it."""
    per_target = derivative(expr, "target")
    fixed = evaluate(substitute(expr, {"target": const(0)}), {}) if names(expr) <= {"target"} else np.nan
    if names(expr) <= {"target"} and per_target.op == "const":
        if per_target.value:  # targets sum to 1
            return per_target.value + float(fixed) * graph.outputs, "classes" if graph.classes else "shares"
        if not per_target.value:
            return float(fixed) * graph.outputs, "classes" if graph.classes else "values"
    raise CompileError("cost: the logsumexp of the outputs may be added or multiplied by the target, as in softmax "
                       "cross-entropy; let predict return what else depends on all outputs, e.g. softmax(R q), not "
                       f"with the factor {expr}")


def slope(found: Cost) -> Expr:
    """dcost/dy of one output over y, target and level."""
    own = derivative(found.expr, "y")
    if found.inside is None:
        return own
    share = below_one(found.inside, var(LEVEL))
    return add(own, mul(mul(found.share, share), derivative(found.inside, "y")))


def levels(found: Cost | None, flow: Flow, state: str, outputs: int) -> tuple[Pass, ...]:
    """Passes that leave the level where the cost derivative of every output reads it; their matrices join the flow.

    ``state`` is the first one: all of them are the columns of the readout."""
    if found is not None and found.weights:
        flow.values[WEIGHTS] = np.reshape(found.weights, (-1, 1))
        flow.matrices[WEIGHTS] = Matrix(WEIGHTS, False)
        flow.lengths |= {ONE: 1, WEIGHED: outputs}
        return (Pass(Opcode.FORWARD, outputs, WEIGHTS, x=ONE, acc=WEIGHED, kept=True),)
    if found is None or found.inside is None:
        return ()
    flow.values |= {"softmax:ones": np.ones((1, outputs)), "softmax:rows": np.ones((outputs, 1)),
                    KEPT: np.ones((outputs, 1))}
    for name in ("softmax:ones", "softmax:rows", KEPT):
        flow.matrices[name] = Matrix(name, False)
    lengths = {"softmax:y": outputs, "softmax:top": 1, "softmax:tops": outputs, "softmax:exps": outputs,
               "softmax:sum": 1, LEVEL: 1, LEVELS: outputs}
    flow.lengths |= lengths
    y, top, total = var("softmax:y"), var("softmax:top"), var("softmax:sum")
    inside = substitute(found.inside, {"y": y})
    n = outputs
    return (
        Pass(Opcode.FORWARD, n, "readout", x=state, acc="softmax:y", expr=y, result="softmax:y", value=True),
        Pass(Opcode.UNITS, n, q="softmax:y", expr=inside, result="softmax:top", value=True, maximum=True),
        Pass(Opcode.FORWARD, n, "softmax:rows", x="softmax:top", acc="softmax:tops", expr=var("softmax:tops"),
             result="softmax:tops", value=True),
        Pass(Opcode.UNITS, n, q="softmax:y", r="softmax:tops", expr=below_one(inside, var("softmax:tops")),
             result="softmax:exps", value=True),
        Pass(Opcode.FORWARD, 1, "softmax:ones", x="softmax:exps", acc="softmax:sum", expr=total, result="softmax:sum",
             value=True),
        Pass(Opcode.UNITS, 1, q="softmax:top", r="softmax:sum", expr=add(logarithm(total), top), result=LEVEL,
             value=True),
        Pass(Opcode.FORWARD, n, KEPT, x=LEVEL, acc=LEVELS, kept=True),
    )


def sampled(found: Cost | None, y: np.ndarray) -> dict[str, np.ndarray]:
    """Values of all vectors of `levels` at outputs (samples, outputs)."""
    if found is None or found.inside is None:
        return {}
    inside = np.broadcast_to(evaluate(found.inside, {"y": y}), y.shape)
    top = inside.max(axis=-1, keepdims=True)
    exps = np.exp(inside - top)
    level = _level(inside)
    return {"softmax:y": y, "softmax:top": top, "softmax:tops": np.broadcast_to(top, y.shape), "softmax:exps": exps,
            "softmax:sum": exps.sum(axis=-1, keepdims=True), LEVEL: level, LEVELS: np.broadcast_to(level, y.shape)}


def encoded(kind: str, y: np.ndarray, outputs: int, error: type[Exception]) -> np.ndarray:
    """Targets of all outputs from the user's: class numbers become one-hot, shares are checked; see `Cost`."""
    if kind == "classes":
        bad = y[(y != np.rint(y)) | (y < 0) | (y >= outputs)]
        if bad.size:
            raise error(f"Y must hold class numbers from 0 to {outputs - 1}, not {bad.flat[0]:g}")
        return np.eye(outputs)[y.astype(int)]
    if kind == "shares" and y.size:
        sums = y.sum(axis=-1)
        worst = sums.flat[np.argmax(np.abs(sums - 1))]
        if abs(worst - 1) > 1e-3:
            raise error("Y must hold, for this softmax cross-entropy, shares of the classes that sum to 1 per sample, "
                        f"not to {worst:g}")
    return y


def _level(inside: np.ndarray) -> np.ndarray:
    top = inside.max(axis=-1, keepdims=True)
    return top + np.log(np.exp(inside - top).sum(axis=-1, keepdims=True))
