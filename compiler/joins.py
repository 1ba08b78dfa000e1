"""What lies between the layers of a stack, as passes at the un-nudged copies, where two samples are side by side.

    x_l = F_l(q of other layers, u)     what layer l is fed, before every force; echoes are fed the same
    e_l                                 dt * dV_l/dx_l: the contrast of the echoes, of every sample
    e_l' dF_l/dq                        nudges of the layers below, but for a factor of -1/2
    e_l' dF_l/dparameter                gradients, as those of a read-out (see `reads`)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from echolith.compiler.graph import Graph
from echolith.compiler.ir import const, var
from echolith.compiler.isa import Opcode
from echolith.compiler.ops import mul
from echolith.compiler.reading import derive_joins
from echolith.compiler.reads import NUDGES
from echolith.compiler.select import Pass, select_reading
from echolith.compiler.steps import ONE, SLOPE, Flow, error, fed

__all__ = ["Joins", "exponents", "joins", "strengthened"]


@dataclass(frozen=True)
class Joins:
    """``copies`` bring what layers are fed to an echo; ``lower`` are the units that come before the last one that is
    nudged from above."""

    graph: Graph
    forward: tuple[Pass, ...]
    copies: tuple[Pass, ...]
    backward: tuple[Pass, ...]
    lower: int
    exponents: dict[str, int] = field(default_factory=dict)  # of nudges by layer, over those of the one that is read

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (*self.forward, *self.copies, *self.backward)


def joins(graph: Graph, dt: float, learn: bool, first: Flow) -> Joins:
    """Passes of a graph of `joint.joins`; its blocks join ``first``, the layers' flow."""
    errors = {error(name): n for name, n in graph.fed.items()}
    states = {s: n for s, n in graph.states.items() if s not in errors}
    flow = derive_joins(graph, dt, learn, first)
    slopes = {s: f"{SLOPE}{s}" for s in states if f"{SLOPE}{s}" in flow.lengths}
    passes = select_reading(flow, tuple(states), frozenset(errors) if learn else frozenset(),
                            frozenset((*graph.fed, *slopes.values())))
    end = 1 + max(i for i, p in enumerate(passes) if p.result in graph.fed)
    copies = tuple(Pass(Opcode.UNITS, n, q=name, expr=var(name), result=name, value=True)
                   for name, n in graph.fed.items())
    if not learn or not slopes:
        return Joins(graph, tuple(passes[:end]), copies, tuple(passes[end:]), 0)
    names = list(states)
    below = names[:1 + max(names.index(s) for s in slopes)]
    return Joins(graph, tuple(passes[:end]), copies, (*passes[end:], *_nudges(flow, states, below, slopes)),
                 sum(states[s] for s in below))


def strengthened(found: Joins, passes: Sequence[Pass], layers: dict[str, int]) -> tuple[Joins, tuple[Pass, ...]]:
    """Joins and passes of the force with nudges 2^exponent times as strong, so that echoes part alike in every layer.
    Errors are as they were: what a layer's contrast has more is taken back where it leaves the layer."""
    by_error = {error(name): n for name, n in layers.items()}
    force = tuple(replace(p, expr=mul(2.0 ** -by_error[p.result], p.expr)) if p.contrast and p.expr is not None else p
                  for p in passes)
    by_nudge = {f"{NUDGES}:{name}": n for name, n in layers.items()}
    backward = tuple(p if p.result not in by_nudge or p.expr is None else
                     replace(p, expr=mul(2.0 ** by_nudge[p.result], p.expr)) for p in found.backward)
    return replace(found, backward=backward, exponents=layers), force


def exponents(passes: Sequence[Pass], layers: dict[str, int]) -> dict[str, int]:
    """Those of matrices, drives and vector parameters, by the layer whose passes learn them."""
    owner = {name: name for name in layers} | {f: name for name in layers for f in (fed(name), error(name))}
    for _ in range(2):  # forth, and back to what comes before the first known name
        for made in (*passes, *reversed(passes)):
            here = {made.x, made.t, made.acc, made.q, made.r, made.result, made.state} - {"", "u", ONE}
            known = next((owner[n] for n in sorted(here) if n in owner), None)
            if known is not None:
                owner |= dict.fromkeys(here, known)
    found: dict[str, int] = {}
    for made in passes:
        layer = next((owner[n] for n in (made.t, made.acc, made.q, made.r, made.state) if n in owner), "")
        if made.opcode == Opcode.OUTER:
            found[made.matrix] = layers.get(layer, 0)
        found |= {name: layers.get(layer, 0) for name, _ in made.learn}
    return found


def _nudges(flow: Flow, states: dict[str, int], below: list[str], slopes: dict[str, str]) -> list[Pass]:
    """Slopes of the layers below side by side, as row operands."""
    found, parts = [], []
    for state in below:
        name = f"{NUDGES}:{state}"
        flow.lengths[name] = states[state]
        source = slopes.get(state, "")
        found.append(Pass(Opcode.UNITS, states[state], q=source, result=name, value=True,
                          expr=mul(1.0, var(source)) if source else const(0)))
        parts.append(name)
    total = flow.lengths[NUDGES] = flow.lengths[f"{NUDGES}:"] = sum(states[s] for s in below)
    return [*found, Pass(Opcode.UNITS, total, q=f"{NUDGES}:", expr=var(f"{NUDGES}:"), result=NUDGES, rows=True,
                         parts=tuple(parts))]
