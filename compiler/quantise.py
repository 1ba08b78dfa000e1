"""Formats and pipelines: the one lossy step, from a float network to the numbers and circuits of the chip."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import numpy as np

from echolith.compiler.calibrate import Samples
from echolith.compiler.case import Case
from echolith.compiler.circuits import Circuits, circuits
from echolith.compiler.costing import CostCircuit, steepest
from echolith.compiler.costs import KEPT, LEVEL, LEVELS, WEIGHED, WEIGHTS, Cost, sampled, slope
from echolith.compiler.differentiate import derivative
from echolith.compiler.errors import CompileError
from echolith.compiler.formats import Formats, Packed, fraction, narrow
from echolith.compiler.isa import Opcode
from echolith.compiler.kinetic import Drift, Drifts, drifts
from echolith.compiler.layout import Plan
from echolith.compiler.located import within
from echolith.compiler.masks import reserved
from echolith.compiler.pipeline import Builder, Pipeline
from echolith.compiler.reads import FULL, NUDGES
from echolith.compiler.resolution import STRETCH, spread
from echolith.compiler.room import FINER, room, sums
from echolith.compiler.steps import DELTA, ERROR, FINE, OUTPUT, SLOPE

__all__ = ["NUDGE", "Formats", "Quantised", "choose_formats", "operand", "quantise"]


NUDGE = 8  # bits of a nudge operand left free at the calibrated response, for stronger ones
_ROUNDS = 8


@dataclass(frozen=True)
class Quantised:
    """Pipelines and table contents."""

    activate: tuple[Pipeline, ...]
    cost: Pipeline | None
    step: tuple[Pipeline, ...]
    drift: tuple[Pipeline, ...]
    drifts: tuple[Drift, ...]
    tables: tuple[np.ndarray, ...]
    circuits: Circuits
    lowered: dict[str, tuple[int, ...]]


def choose_formats(case: Case, given: Mapping[str, int] = MappingProxyType({}), input_bits: int = 0,
                   packed: Packed | None = None) -> Formats:
    """Formats from the calibrated ranges, but for those that are ``given``, as ``input_bits`` may be; weights that
    learn get room for growth, those of packed products little."""
    graph, samples, width, plan = case.graph, case.samples, case.board.width, case.plan
    values: Mapping[str, np.ndarray] = case.flow.values
    learned = graph.learned if case.learn else frozenset()
    learns = bool(learned)
    state = max(samples.p, *(float(np.abs(samples.values[s]).max(initial=0)) for s in graph.states))
    inputs, targets = narrow(samples.inputs, width), narrow(samples.targets, width)
    f = {
        "state": min(fraction(room(state, learns, packed is not None), width, 1.0),
                     width - (4 if learns else 3)),
        "input": inputs.frac, "target": targets.frac,
        "output": fraction(_outputs(case.cost, samples), width, 1.0),
    }
    f["state"] = given.get("state", f["state"])
    f |= {s: f["state"] for s in case.positions}
    largest = float(np.abs(samples.inputs).max(initial=0.0))
    f["input"], bits = given.get("input", f["input"]), input_bits or inputs.width
    f["u"] = min(fraction(max(largest, 2.0 ** -f["input"]), width), width - 2, f["input"] + width - bits)
    f["u"] = f["input"] if case.joins else max(f["input"], f["u"])
    f |= sums(case, width, learns, f["state"], 2.0 ** (bits - 1 - f["input"]) - 2.0 ** -f["input"])
    drives = [b for b in plan.blocks if b.name.startswith("drive")]
    for block in plan.blocks:
        if block not in drives:
            f[block.name] = _weights(plan, values, learned, (block.name,), width, 1.0, packed)
    shared = _weights(plan, values, learned, tuple(b.name for b in drives), width, 1.0 / max(1.0, largest), packed)
    f |= {b.name: shared for b in drives} | {"drive": shared}
    f.setdefault("readout", _weights(plan, values, learned, (), width, 1.0, packed))
    for index, name in enumerate(case.vectors):
        largest = max(float(np.abs(values[name]).max()), 0.25)
        f[f"vector{index}"] = fraction(largest, width, 4.0 if name in learned else 1.01)
    if case.cost is not None:
        f["delta"] = fraction(max(steepest(case.cost, samples.y, samples.targets), 2.0**-8), width - 1)
    f |= _reading(case, f, width) | _joins(case, f, width)
    f |= given
    if f["state"] < 0:
        raise CompileError(f"energy: the states grow beyond words of {width} bits on the calibration data; make dt "
                           f"smaller or scale the weights, not {state:g}")
    f |= {s: f["state"] for s in case.positions} | _levels(case, f, given, width)
    bits = targets.width if case.cost is not None else inputs.width
    if samples.missing is not None and samples.targets.min() * 2.0**targets.frac <= reserved(bits):
        bits = min(bits + 1, width)
    return Formats(f, input_bits or inputs.width, bits, case.accumulator, case.board.segments, packed=packed)


def _reading(case: Case, f: Mapping[str, int], width: int) -> dict[str, int]:
    """Of a read-out's own vectors: y, what the cost leaves, the slopes side by side."""
    if case.reading is None:
        return {}
    found = {OUTPUT: f["output"]}
    if case.learn:
        full = operand(case)
        slopes = [v for s in case.graph.states if (v := case.samples.values.get(f"{SLOPE}{s}")) is not None]
        largest = max(float(np.abs(v).max(initial=0.0)) for v in slopes)
        found |= {DELTA: full, ERROR: full - 1}
        found |= {name: fraction(largest, width, 4.0) for p in case.reading.backward for name in (p.q, p.result)
                  if name.startswith((SLOPE, NUDGES))}
        found |= {p.result: fraction(float(np.abs(case.samples.values[p.result]).max(initial=0.0)), width - 1, 4.0)
                  for p in case.reading.backward if p.result.endswith(FINE)}
    return found


def _joins(case: Case, f: Mapping[str, int], width: int) -> dict[str, int]:
    """Of a stack: nudges from above."""
    if case.joins is None or not case.learn:
        return {}
    found: dict[str, int] = {}
    beside = {n for p in case.joins.backward for n in (p.q, p.result) if n.startswith(NUDGES)}
    if beside:  # parts of one vector, which a block of -1/2 brings to the states
        words = f["readout"] + width - NUDGE + 3  # fraction bits of sums that become nudges, those of the states too
        frac = min(max(fraction(max(_largest(case, n) for n in beside), width, 4.0), words - (width - 1)), words - 2)
        found |= dict.fromkeys(beside, frac) | {"nudge": words - frac}
    return found


def _finest(case: Case, state: int) -> dict[str, int]:
    """Fraction bits of what a stack's layers are fed, and of what that is made of."""
    made = case.joins.forward if case.joins and case.learn else ()
    return {p.result: state + FINER for p in made if p.value}


def _largest(case: Case, name: str) -> float:
    return float(np.abs(case.samples.values[name]).max(initial=2.0**-30))


def operand(case: Case) -> int:
    """Fraction bits of the row operands that the cost of a read-out with passes of its own leaves."""
    assert case.reading is not None
    return case.board.width - 1 - int(np.log2(FULL)) + case.reading.weaker


def _levels(case: Case, f: Mapping[str, int], given: Mapping[str, int], width: int) -> dict[str, int]:
    """Of the vectors of a softmax, for outputs anywhere in their format; those kept follow from the others."""
    if case.cost is not None and case.cost.weights:
        return _weights_beside(case, f, given, width)
    if not case.levels:
        return {}
    shift, kept = f["drive"] + f["u"] - f["z"], case.plan.names[KEPT]
    found = {name: fraction(float(np.abs(v).max()), width, 1.01 / STRETCH) for name, v in _stretched(case, f).items()}
    found |= {"softmax:y": f["output"], kept: min(max(shift, 0), width - 2)}
    found |= {name: frac for name, frac in given.items() if name in found}
    return found | {LEVELS: found[kept] + found[LEVEL] - shift}


def _weights_beside(case: Case, f: Mapping[str, int], given: Mapping[str, int], width: int) -> dict[str, int]:
    """Of the weights of outputs: as a block, times one, and as they are kept."""
    assert case.cost is not None
    shift, block = f["drive"] + f["u"] - f["z"], case.plan.names[WEIGHTS]
    finest = fraction(max(np.abs(case.cost.weights)), width, 1.01)
    own = given.get(block, min(finest, finest + shift - f["state"]))
    return {block: own, WEIGHED: own + f["state"] - shift}


def _stretched(case: Case, f: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Values of the vectors of a softmax over the outputs' whole format."""
    found = sampled(case.cost, spread(case.samples.y, f["output"], case.board.width))
    if found:
        found["softmax:sum"] = np.linspace(1.0, case.graph.outputs, len(case.samples.y))[:, None]
    return found


def _outputs(cost: Cost | None, samples: Samples) -> float:
    """Range of the outputs: they follow the targets, or, where the cost saturates (logits), they keep growing."""
    largest = 4.0 * max(float(np.abs(a).max(initial=0)) for a in (samples.y, samples.targets))
    if cost is None:
        return max(largest, 2.0**-8)
    bend = derivative(slope(cost), "y")
    return max(largest, 2.0**-8 if bend.op == "const" else 16.0)


def _weights(plan: Plan, values: Mapping[str, np.ndarray], learned: frozenset[str], blocks: tuple[str, ...], width: int,
             floor: float, packed: Packed | None) -> int:
    """Room for four times the largest weight; learned weights always reach 4 * ``floor``. Of packed products, the
    largest weight at least, and ``floor`` / 2."""
    used = [(name, c.scale) for c in plan.columns if c.block in blocks for name, *_ in c.parameters]
    largest = max((abs(s) * float(np.abs(values[n]).max(initial=0)) for n, s in used), default=0)
    grows = any(n in learned for n, _ in used)
    if packed and grows:
        return fraction(max(largest, 0.5 * floor), width, 1.0)
    return fraction(max(4.0 * largest, 3.9 * floor) if grows else max(largest, 2.0**-width) * 1.01, width, 1.0)


def quantise(case: Case, formats: Formats) -> Quantised:
    """Lower passes, cost and drift; table slots count through activate, cost, step."""
    graph, samples, width = case.graph, case.samples, case.board.width
    accumulator, segments = formats.accumulator, formats.segments
    lowered: dict[str, tuple[int, ...]] = {}
    values = {name: np.asarray(v).reshape(-1) for name, v in case.flow.values.items()} | samples.values
    values |= _stretched(case, formats.fractions)
    coarser: dict[str, int] = {}
    rounds = 0
    passes = case.everything
    while True:
        with within("energy"):
            found = circuits(passes, case.flow, graph.states, case.plan.names, formats.fractions | coarser, values,
                             case.vectors, width=width, segments=segments, accumulator=accumulator, lanes=case.lanes,
                             given=formats.lowered, finest=_finest(case, formats.fractions["state"]),
                             narrow=case.parts["reads"] + case.parts["backs"] + case.parts["errors"])
        more, rounds = _aligned(case, found, rounds > _ROUNDS), rounds + 1
        if not more:
            break
        coarser |= more
    _parted(case, found)
    found.activate = found.activate or [_nothing("acc", accumulator, "t")]
    found.step = found.step or [_nothing("q", width, "force")]
    tables = list(found.tables["activate"])
    errors = None
    if graph.readout is not None:
        low_tables: list[np.ndarray] = []
        with within("cost"):
            errors = _cost(case, formats, segments, accumulator, len(tables), low_tables, lowered)
        tables += low_tables
    step = tuple(_renumbered(p, len(tables)) for p in found.step)
    tables += found.tables["step"]
    with within("kinetic"):
        moved = drifts(graph.kinetic, graph.states, case.flow.values, samples.p, case.vectors,
                       graph.learned if case.learn else frozenset(), formats.fractions, found.gradients,
                       dt=case.dynamics.dt, width=width, segments=segments, first=len(tables), given=formats.lowered)
    tables += moved.tables
    _point(case, found, moved)
    return Quantised(tuple(found.activate), errors, step, tuple(moved.pipelines), tuple(moved.places),
                     tuple(tables), found, lowered | found.lowered | moved.lowered)


def _parted(case: Case, found: Circuits) -> None:
    """Sweeps by the parts of a case."""
    sweeps = iter(found.sweeps)
    for name, passes in case.parts.items():
        setattr(found, name, list(islice(sweeps, len(passes))))


def _point(case: Case, found: Circuits, moved: Drifts) -> None:
    """Sweeps in which a state drifts know its circuit."""
    firsts, place = {}, 0
    for state, units in case.graph.states.items():
        firsts[state] = next(d for d in moved.places if d.first <= place < d.first + d.length)
        place += units
    for i, made in enumerate(case.passes):
        if made.drift:
            own = firsts[made.state]
            found.sweeps[i] = dataclasses.replace(found.sweeps[i], drift_kind=own.kind, mass=own.mass)


def _nothing(source: str, width: int, result: str) -> Pipeline:
    """The circuit of a unit that the force does not need."""
    b = Builder((source, width))
    return b.build(**{result: b("const", n=0)})


def _aligned(case: Case, found: Circuits, stuck: bool) -> dict[str, int]:
    """Coarser formats of row operands, so that all uses of one block add to its gradient in one format; of columns
    where ``stuck``: rows that several blocks share cannot please them all."""
    f, uses = found.fractions, {}
    for made in case.everything:
        if made.opcode == Opcode.OUTER:
            uses.setdefault(made.matrix, []).append(made)
    for passes in uses.values():
        least = min(f[p.t] + f[p.source(p.x)] for p in passes)
        for made in passes:
            x = made.source(made.x)
            excess = f[made.t] + f[x] - least
            fixed = made.t in case.positions or any(p.t == made.t and f[p.source(p.x)] != f[x] for p in passes)
            fixed = fixed or stuck and x not in case.positions
            if excess and fixed and x in case.positions:
                raise CompileError(f"energy: one learned matrix is applied to {x} and to vectors of a much wider "
                                   f"range; give each a matrix of its own, or scale them alike, not {made.matrix}")
            if excess:
                return {x if fixed else made.t: f[x if fixed else made.t] - excess}
    return {}


def _renumbered(pipeline: Pipeline, first: int) -> Pipeline:
    """Table slots counted from ``first``."""
    ops = tuple(dataclasses.replace(op, n=op.n + first) if op.kind == "table" else op for op in pipeline.ops)
    return dataclasses.replace(pipeline, ops=ops)


def _cost(case: Case, formats: Formats, segments: int, accumulator: int, first: int, tables: list[np.ndarray],
          lowered: dict[str, tuple[int, ...]]) -> Pipeline:
    """acc, target and, of a softmax, the level where drives are kept -> y, and the cost derivative clipped to one bit
    less, so that its negative fits."""
    made = CostCircuit(case, formats, segments, accumulator, first)
    if not case.learn:
        return made.outputs()
    lowered["cost"] = tuple(made.low.formats)
    tables += made.low.tables
    return made.pipeline
