"""Steps that need no vector of their own: another's name, or what one element-wise step alone reads."""

from dataclasses import replace

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.ir import Expr
from echolith.compiler.steps import FINE, Accumulate, Flow, Gather, Kick, Linear, Map, Maximum, Outer, Step

__all__ = ["OPERANDS", "inlined", "reads"]

OPERANDS = 2  # vectors that a pass reads, each element by element or gathered


def reads(step: Step, flow: Flow) -> frozenset[str]:
    """Vectors that a step reads."""
    if isinstance(step, Linear | Gather):
        return frozenset([step.x])
    if isinstance(step, Outer):
        return frozenset([step.rows, step.columns])
    return names(step.expr) & frozenset(flow.lengths)


def inlined(steps: list[Step], flow: Flow, wanted: frozenset[str] = frozenset()) -> list[Step]:
    """Maps that are another vector's name, or that one element-wise step alone reads, disappear into their readers;
    what nobody reads disappears; what is ``wanted`` stays."""
    steps = list(steps)
    changed = True
    while changed:
        changed = False
        for step in steps:
            if not isinstance(step, Map | Linear | Gather | Maximum) or step.name in wanted or step.name.endswith(FINE):
                continue
            readers = [s for s in steps if step.name in reads(s, flow)]
            if not readers:
                steps = [s for s in steps if s is not step]
                changed = True
                break
            if not isinstance(step, Map):
                continue
            elementwise = all(isinstance(s, Map | Maximum | Kick | Accumulate) for s in readers)
            read = reads(step, flow)
            gathered = read and read <= {s.name for s in steps if isinstance(s, Gather)}
            alias = step.expr.op == "var" and step.expr.name in flow.lengths and not gathered
            free = gathered and (len(read) == 1 or len(read) == OPERANDS and
                                 all(reads(s, flow) <= read | {step.name} for s in readers))
            if alias or (elementwise and (len(readers) == 1 or free)):
                steps = [_replaced(s, step.name, step.expr) for s in steps if s is not step]
                changed = True
                break
    return steps


def _replaced(step: Step, name: str, expr: Expr) -> Step:
    if isinstance(step, Linear | Gather):
        return replace(step, x=expr.name) if step.x == name else step
    if isinstance(step, Outer):
        return replace(step, rows=expr.name if step.rows == name else step.rows,
                       columns=expr.name if step.columns == name else step.columns)
    return replace(step, expr=substitute(step.expr, {name: expr})) if name in names(step.expr) else step
