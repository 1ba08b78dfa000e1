"""What the later passes read of a compile: the network, its passes, its calibrated samples, the board."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from echolith.boards.catalog import Board
from echolith.compiler.agree import agree, agree_joins, agree_reading
from echolith.compiler.begun import begun
from echolith.compiler.calibrate import Samples, calibrate, force, forward
from echolith.compiler.capture import capture
from echolith.compiler.costs import Cost, cost, encoded, levels
from echolith.compiler.design import Design, Dynamics, Rule
from echolith.compiler.differentiate import names
from echolith.compiler.dynamics import Leapfrog
from echolith.compiler.echoes import echoes, responses
from echolith.compiler.errors import CompileError, DesignMismatch
from echolith.compiler.finer import finer, refined
from echolith.compiler.finer import joined as joined_states
from echolith.compiler.flow import derive
from echolith.compiler.fold import biased
from echolith.compiler.graph import Graph
from echolith.compiler.hints import input_hint, target_hint
from echolith.compiler.homogeneous import homogeneous
from echolith.compiler.inlets import inlets, single
from echolith.compiler.joins import Joins, joins, strengthened
from echolith.compiler.joint import fed_layers, joined_layers
from echolith.compiler.joint import joins as between
from echolith.compiler.layout import Plan, plan
from echolith.compiler.learning import AnyRule
from echolith.compiler.masks import filled, missing, placed
from echolith.compiler.plain import plain, shaped
from echolith.compiler.prepare import prepared
from echolith.compiler.reads import Reading, joined, laned, parted, reading, renamed, simple
from echolith.compiler.select import Pass, select
from echolith.compiler.stack import Stack
from echolith.compiler.steps import DELTA, LANES, ONE, OUTPUT, Flow, fed
from echolith.compiler.taken import FORMATS

__all__ = ["Case", "case"]

_SAMPLES = 32  # made up where none are given


@dataclass(frozen=True)
class Case:
    """Everything that does not change while formats and response are searched."""

    graph: Graph
    flow: Flow
    passes: tuple[Pass, ...]
    reading: Reading | None  # None: the readout is the states times a matrix
    joins: Joins | None  # None: no stack
    cost: Cost | None  # None too without a rule
    levels: tuple[Pass, ...]  # of a softmax, before every cost
    vectors: tuple[str, ...]  # parameters of the neuron unit
    samples: Samples
    dynamics: Dynamics
    board: Board
    lanes: int
    learn: bool
    plan: Plan
    capacity: int  # samples that the data memory should hold
    rule: Rule
    decays: bool  # weights, if so told: on hardware for it
    apart: int  # bits by which the echoes of a stack's linear layers part further
    written: Graph  # as the model has it: ``graph`` may have momenta in finer units
    finer: dict[str, int]  # by so many bits

    @property
    def units(self) -> int:
        return sum(self.graph.states.values())

    @property
    def positions(self) -> tuple[str, ...]:
        """Vectors in the format of the states."""
        return (*self.graph.states, ONE) if ONE in self.flow.lengths else tuple(self.graph.states)

    @property
    def accumulator(self) -> int:
        """Bits that hold the longest sum of products of any block, in either direction."""
        columns = max((b.columns for b in self.plan.blocks), default=2)
        rows = max((-(-b.rows // self.lanes) * self.lanes for b in self.plan.blocks), default=2)
        return 2 * self.board.width - 1 + math.ceil(math.log2(max(columns, rows, 2)))

    @property
    def begun(self) -> Mapping[str, np.ndarray]:
        """Values with which nudges and gradients are ranged."""
        return begun(self.flow, self.graph.learned, self.passes, *_beside(self.reading, self.joins))

    def spread(self, lanes: int) -> "Case":
        """The same over another number of lanes."""
        flow = laned(self.flow, lanes) if LANES in self.flow.values else self.flow
        found = plan(self.graph, flow, self.everything, lanes, self.board.overlap)
        return replace(self, lanes=lanes, flow=flow, plan=found)

    def weakened(self, bits: int) -> "Case":
        """The same with row operands of the read-out that stand for 2^-bits of what they did."""
        assert self.reading is not None
        given = {n: v for n, v in self.samples.values.items() if n in (*self.graph.states, "u")}
        given[DELTA] = self.samples.values[DELTA] * 2.0**-bits
        env, _ = force(self.reading.passes, self.flow, given, self.flow.values)
        values = self.samples.values | {n: v for n, v in env.items() if n not in self.flow.values}
        return replace(self, samples=replace(self.samples, values=values),
                       reading=replace(self.reading, weaker=self.reading.weaker + bits))

    @property
    def everything(self) -> tuple[Pass, ...]:
        """Passes in the order of `parts`."""
        return tuple(made for part in self.parts.values() for made in part)

    @property
    def parts(self) -> dict[str, tuple[Pass, ...]]:
        """By the names of `Circuits`: what layers of a stack are fed, the force, the read-out, what is behind its cost,
        the rest of a stack, and the level of a cost."""
        read, between = self.reading, self.joins
        return {
            "feeds": between.forward if between else (), "sweeps": self.passes,
            "reads": read.forward if read else (), "backs": read.backward if read else (),
            "copies": between.copies if between else (), "errors": between.backward if between else (),
            "levels": self.levels,
        }


def case(model, dynamics: Leapfrog, rule: AnyRule | None, given, steps: int | None, target: Board, lanes: int,
         room: int | None, like: Design | None, growth: float | None = None) -> Case:
    """Capture, derive, select, calibrate, verify, lay out; ``given`` is (X, Y), (X, Y, mask) or None. ``growth``: of a
    model that `damped` has made."""
    graph, readout, above = _captured(model, growth)
    _names(graph)
    if rule is not None and rule.weight_decay and not target.overlap:
        raise CompileError("weight_decay needs a board with room for overlapping sweeps; compile for ulx3s-85f, or "
                           f"with weight_decay=False, not for {target.name}")
    if rule is not None and above is not None:
        _stackable(rule, target)
    if rule is not None and rule.lowered.counted and (readout is not None or (like and like.hardware.adding)):
        name = rule.lowered.name
        raise CompileError(f"{name} takes readouts R q + b of words of their own, as it nudges samples side by side "
                           f"with opposite signs; learn others by HamiltonianEcho(), not by {name}()")
    cost_at = rule and ("last" if rule.cost_at == "last" else "every")
    if rule is not None and not graph.cost:
        raise CompileError("a rule needs a cost: give the model a method cost(q, y), or compile with rule=None")
    found = cost(graph) if rule is not None else None
    given, absent = _unmasked(given, found)
    x, y = _data(graph, found, given, steps, cost_at)
    if absent is not None:
        absent = placed(absent, found is not None and found.targets == "classes", cost_at == "every", graph.outputs)
    elif like is not None and like.missing is not None:
        absent = np.zeros(y.shape, bool)
    flow, passes, joined_by = _derived(graph, above, dynamics, rule)
    written, bits = graph, _finer(graph, flow, passes, joined_by, x, dynamics, given is not None, like)
    if any(bits.values()):
        graph = refined(graph, bits)
        flow, passes, joined_by = _derived(graph, above, dynamics, rule)
    width = like.hardware.lanes if like else lanes
    read = None
    if readout is not None:
        read = reading(readout, float(dynamics.dt), rule is not None, flow)
    if rule is not None and (read or joined_by):
        flow = laned(flow, width)
    before = levels(found, flow, OUTPUT if read else next(iter(graph.states)), graph.outputs)
    late, checked, apart = {}, (joined_by, passes), 0
    larger = flow
    if rule is not None:
        larger = replace(flow, values=begun(flow, graph.learned, passes, *_beside(read, joined_by)))
    if joined_by and found and cost_at:
        how = (found, x, y, dynamics.dt, dynamics.substeps, cost_at)
        layers, further = responses(graph, passes, larger, joined_by, *how)
        apart = max(further.values())
        joined_by, passes = strengthened(joined_by, passes, layers)
        late = echoes(graph, passes, larger, joined_by, *how, further)
        late = {n: v for n, v in late.items() if _late(n, passes, joined_by)}
    samples = calibrate(graph, passes, larger, x, y, dynamics.dt, dynamics.substeps, cost_at,
                        read.passes if read else (), joined_by.forward if joined_by else (), late)
    samples = replace(samples, missing=absent if rule is not None else None)
    agree(graph, flow, checked[1], samples, dynamics.dt, rule is not None)
    if joined_by is not None:
        agree_joins(joined_by, flow, samples, dynamics.dt, rule is not None)
    if read is not None:
        agree_reading(read.graph, flow, read.passes, samples, dynamics.dt, rule is not None)
    scale = 1.0 / x.shape[1] if rule and rule.cost_at == "mean" else 1.0
    timing = Dynamics(float(dynamics.dt), dynamics.substeps, x.shape[1], cost_at, scale, rule.check if rule else 1)
    every = (*passes, *(read.passes if read else ()), *(joined_by.passes if joined_by else ()))
    used = {n for p in every for e in (p.expr, *(e for _, e in p.learn)) if e is not None for n in e.variables()}
    used = used.union(*map(names, graph.kinetic.values()))
    vectors = tuple(sorted(used & set(flow.values)))
    return Case(graph, flow, passes, read, joined_by, found, before, vectors, samples, timing, target, width,
                rule is not None, plan(graph, flow, (*every, *before), width, target.overlap),
                len(x) if room is None else room,
                rule.lowered if rule else Rule(), bool(rule and rule.weight_decay), apart, written, bits)


def _beside(read: Reading | None, between: Joins | None) -> tuple[tuple[Pass, ...], tuple[Pass, ...]]:
    """Passes of a read-out, and those between layers."""
    return read.passes if read else (), between.passes if between else ()


def _derived(graph: Graph, above: Graph | None, dynamics: Leapfrog, rule: AnyRule | None
             ) -> tuple[Flow, tuple[Pass, ...], Joins | None]:
    flow = derive(graph, float(dynamics.dt), rule is not None)
    passes = tuple(select(flow, tuple(graph.states), frozenset(graph.fed)))
    return flow, passes, joins(above, float(dynamics.dt), rule is not None, flow) if above else None


def _finer(graph: Graph, flow: Flow, passes: tuple[Pass, ...], between: Joins | None, x: np.ndarray,
           dynamics: Leapfrog, calibrated: bool, like: Design | None) -> dict[str, int]:
    """Bits by which momenta of every state are finer: as given hardware has them, or as calibration data ask for."""
    if like is not None and len(like.finer) == len(graph.states):
        given = dict(zip(graph.states, like.finer.values(), strict=True))
        for group in joined_states(graph):
            if len({given[s] for s in group}) > 1:
                raise DesignMismatch("the network does not fit this hardware, whose states have momenta in units of "
                                     "their own: an energy must not join those of different units, not "
                                     f"{', '.join(sorted(group))}")
        return given
    if like is not None or not calibrated:
        return dict.fromkeys(graph.states, 0)
    run = forward(graph, passes, flow, x, dynamics.dt, dynamics.substeps, between.forward if between else ())
    return finer(graph, ((q, p) for _, _, q, _, p in run))


def _captured(model, growth: float | None) -> tuple[Graph, Graph | None, Graph | None]:
    """The energy, the read-out if it needs passes of its own, and what lies between the layers of a stack."""
    if not isinstance(model, Stack):
        graph = capture(model)
        return (*_prepared(homogeneous(graph, growth) if growth else graph), None)
    widths = {fed(name): n for name, n in fed_layers(model).items()}
    graph, readout = _prepared(capture(joined_layers(model)))
    if readout is not None:
        raise CompileError("a stack is read out as R q + b of its last layer's position, by parameters of its own; put "
                           "other functions into a block below a last layer")
    layers = {s: n for s, n in graph.states.items() if s not in widths}
    kinetic = {s: e for s, e in graph.kinetic.items() if s in layers}
    graph = replace(graph, states=layers, kinetic=kinetic, fed=widths)
    if not widths:
        return graph, None, None
    above = prepared(single(biased(capture(between(model))), widths))
    graph, above = inlets(graph, replace(renamed(above), fed=widths))
    return replace(graph, values=graph.values | above.values, learned=graph.learned | above.learned,
                   derived=tuple(dict.fromkeys((*graph.derived, *above.derived)))), None, above


def _stackable(rule: AnyRule, target: Board) -> None:
    if rule.lowered.counted:
        raise CompileError(f"{rule.lowered.name} is not built for stacks: what a layer hands down is the contrast of "
                           f"two echoes; learn them by HamiltonianEcho(), not by {rule.lowered.name}()")
    if not target.overlap:
        raise CompileError("a stack learns on boards where two echoes have row operands of their own; compile for "
                           f"ulx3s-85f, or with rule=None, not for {target.name}")


def _late(name: str, passes: tuple[Pass, ...], between: Joins) -> bool:
    """Whether a vector or sum is of the echoes' contrast, or follows from one."""
    made = (*(p for p in passes if p.contrast), *between.backward)
    return any(name in (p.result, p.acc, p.q if p.parts else p.acc, *(g.name for g in p.gathers)) for p in made)


def _prepared(graph: Graph) -> tuple[Graph, Graph | None]:
    """Ready for derivation: the energy, and the read-out if it needs passes of its own."""
    graph = biased(graph)
    return (prepared(graph), None) if simple(graph) else parted(prepared(joined(graph)))


def _names(graph: Graph) -> None:
    for state in graph.states:
        if FORMATS.fullmatch(state):
            raise CompileError("states: a name of a format or a block cannot be a state's; rename it, e.g. to "
                               f"{state}_, not {state!r}")


def _unmasked(given, cost: Cost | None):
    """(X, Y) with targets in place of the missing ones, and which are missing; None without a mask."""
    if given is None or cost is None or len(given) < 3 or given[2] is None or given[1] is None:
        return given and given[:2], None
    y = plain("Y", given[1], CompileError)
    absent = missing(y, plain("mask", given[2], CompileError), cost.inside is not None and cost.targets != "classes",
                     CompileError)
    if absent.all():
        raise CompileError("mask must leave targets to calibrate with, not none")
    return (given[0], filled(y, absent)), absent


def _data(network: Graph, cost: Cost | None, given, steps: int | None, cost_at: str | None
          ) -> tuple[np.ndarray, np.ndarray]:
    """Checked (batch, steps, inputs) and (batch, read-outs, outputs) float64 arrays."""
    if given is None:
        if steps is None:
            raise CompileError("give calibrate=(X, Y), or steps= with the number of input rows per sample")
        generator = np.random.default_rng(0)
        x = generator.uniform(-1, 1, (_SAMPLES, steps, network.inputs)).round(3)
        rows = steps if cost_at == "every" else 1
        if cost is not None and cost.targets != "values":
            return x, np.eye(network.outputs)[generator.integers(network.outputs, size=(_SAMPLES, rows))]
        return x, (generator.uniform(-1, 1, (_SAMPLES, rows, network.outputs)) > 0).astype(float)
    x = shaped("X", given[0], (None, None, network.inputs), "(batch, steps, inputs)", CompileError,
               lambda found: input_hint(found, network.inputs))
    if steps not in (None, x.shape[1]):
        raise CompileError(f"steps is for models without data, and the data have {x.shape[1]} rows per sample; leave "
                           f"it out, not {steps}")
    if given[1] is None:
        if cost_at is not None:
            raise CompileError("calibrate=(X, Y) needs Y for a rule, not None")
        return x, np.zeros((len(x), 1, network.outputs))
    every, kind = cost_at == "every", "values" if cost is None else cost.targets
    if cost_at is None:
        every, kind = _form(network, plain("Y", given[1], CompileError).shape, x.shape[:2])
    sizes, text = [len(x)], "batch"
    if every:
        sizes, text = [len(x), x.shape[1]], "batch, steps"
    if kind != "classes":
        sizes, text = [*sizes, network.outputs], f"{text}, outputs"
    y = shaped("Y", given[1], sizes, f"({text})", CompileError,
               lambda found: target_hint(found, kind, network.outputs, every))
    y = y if every else y[:, None]
    return x, encoded(kind, y if cost_at else y[:, -1:], network.outputs, CompileError)


def _form(network: Graph, shape: tuple[int, ...], rows: tuple[int, ...]) -> tuple[bool, str]:
    """Of targets that nothing learns from, such as any rule would take: whether every row has one, and what they are.
    Outputs are read at the last row."""
    if network.classes and (len(shape) == 1 or shape == rows):
        return len(shape) == 2, "classes"
    return len(shape) == 3, "values"
