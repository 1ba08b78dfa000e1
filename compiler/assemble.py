"""Everything found so far as one frozen `Design`."""

import numpy as np

from echolith.compiler.case import Case
from echolith.compiler.circuits import Circuits
from echolith.compiler.describe import describe
from echolith.compiler.design import Design, Hardware, Placement, Vector
from echolith.compiler.differentiate import names
from echolith.compiler.hardware import NUDGE, record
from echolith.compiler.isa import Opcode
from echolith.compiler.joins import exponents
from echolith.compiler.program import Program, Schedule, build
from echolith.compiler.quantise import Formats, Quantised
from echolith.compiler.select import Pass
from echolith.compiler.steps import DELTA, OUTPUT, error, fed

__all__ = ["assembled", "program"]


def program(case: Case, hardware: Hardware, q: Quantised) -> Program:
    """The phases of the rule over the sweeps of the force."""
    blocks = {b.name: b for b in case.plan.blocks}
    updates = {f"{c.block}.{c.start}": (blocks[c.block], c.start, c.count)
               for c in case.plan.columns if any(name in case.graph.learned for name, *_ in c.parameters)}
    vectors = tuple(int(np.size(case.flow.values[name])) for name in case.vectors)
    return build(Schedule(hardware, case.dynamics, case.units, case.graph.inputs, case.graph.outputs, blocks,
                          tuple(q.circuits.sweeps), tuple(q.circuits.levels), q.drifts, _drives(case, q.circuits),
                          updates, vectors if case.learn else (), case.plan.used,
                          record(case, hardware.data_width, hardware.input_bits, hardware.target_bits),
                          tuple(q.circuits.reads), tuple(q.circuits.backs), _source(case, q.circuits),
                          case.rule.counted,
                          tuple(q.circuits.feeds), tuple(q.circuits.copies), tuple(q.circuits.errors),
                          case.joins.lower if case.joins else 0))


def _source(case: Case, circuits: Circuits) -> int:
    """Where the vector is that the readout block is applied to."""
    return next((s.place for s, p in zip(circuits.reads, _reading(case), strict=False) if p.result == OUTPUT), 0)


def _reading(case: Case) -> tuple[Pass, ...]:
    return case.reading.passes if case.reading else ()


def _drives(case: Case, circuits: Circuits) -> dict[str, int]:
    """Blocks whose sums are kept over the substeps, with their first row."""
    found = [both for name, passes in case.parts.items() for both in zip(passes, getattr(circuits, name), strict=True)]
    return {case.plan.names[p.drive]: s.drive for p, s in found if p.drive}


def assembled(case: Case, formats: Formats, q: Quantised, hw: Hardware, words: Program) -> Design:
    """The design before ranging: its gain is 0."""
    f, n = formats.fractions, case.graph
    placements = _placements(case, f, q, hw)
    vectors = tuple(
        Vector(name, int(np.size(case.flow.values[name])), name in n.learned, f[f"vector{i}"] + hw.width,
               -case.dynamics.cost_scale * _inverse(case, f, hw) * case.dynamics.dt
               * 2.0 ** -(q.circuits.gradients.get(name, 0) + _stronger(case).get(name, 0)) if case.learn else 0.0)
        for i, name in enumerate(case.vectors))
    used = {name for p in placements for name in p.parameters} | set(case.vectors)
    used |= {o.parameter for d in n.derived for o in d.operands.values()}
    return Design(
        hardware=hw, dynamics=case.dynamics, units=case.units, inputs=n.inputs,
        outputs=n.outputs if n.readout else case.units,
        learned=tuple(sorted(n.learned - {d.name for d in n.derived})), derived=n.derived,
        blocks=case.plan.blocks, placements=placements, vectors=vectors,
        states=dict(n.states), sweeps=tuple(q.circuits.sweeps), levels=tuple(q.circuits.levels),
        drifts=q.drifts, kinetic=dict(n.kinetic), kept_drives=_drives(case, q.circuits),
        passes=case.passes, matrices=case.flow.matrices, drives=case.flow.drives,
        program=words.words, entries=words.entries, rates=words.rates, tables=q.tables,
        values={k: np.asarray(v, np.float64) for k, v in case.flow.values.items() if k in used}, fractions=f,
        lowered=q.lowered, response=hw.width - NUDGE + hw.delta_shift, gain=0,
        cost=case.cost, index=tuple(q.circuits.index), report=_report(case),
        reads=tuple(q.circuits.reads), backs=tuple(q.circuits.backs), reading=_reading(case),
        rule=case.rule,
        feeds=tuple(q.circuits.feeds), copies=tuple(q.circuits.copies), errors=tuple(q.circuits.errors),
        lower=case.joins.lower if case.joins else 0, between=case.joins.passes if case.joins else (),
        apart=case.apart, strengths=_strengths(case), finer=case.finer)


def _stronger(case: Case) -> dict[str, int]:
    """Bits by which nudges of a stack's layers are stronger, by matrix, drive or vector parameter."""
    if case.joins is None:
        return {}
    masses = {name: n for state, n in case.joins.exponents.items() for name in names(case.graph.kinetic[state]) - {"p"}}
    return exponents(case.passes, case.joins.exponents) | masses


def _strengths(case: Case) -> dict[str, int]:
    found = case.joins.exponents if case.joins else {}
    return {error(state): n for state, n in found.items() if fed(state) in case.graph.fed}


def _inverse(case: Case, f: dict[str, int], hw: Hardware) -> float:
    """1 / (2 * eps) of a sample with exponent 0: the contrast of two echoes, +eps and -eps. 1 / eps where one of them
    is that with the way forward."""
    operand = f[DELTA] if DELTA in f else hw.nudge_shift + f["state"] - f["readout"]
    return (1.0 if case.rule.counted else 0.5) * 2.0 ** -(f["delta"] - hw.delta_shift - operand)


def _placements(case: Case, f: dict[str, int], q: Quantised, hw: Hardware) -> tuple[Placement, ...]:
    grain = {case.plan.names[p.matrix]: f[p.t] + f[p.source(p.x)] for p in case.everything
             if p.opcode == Opcode.OUTER}
    placements, scale = [], case.dynamics.cost_scale
    stronger = {case.plan.names[name]: n for name, n in _stronger(case).items() if name in case.plan.names}
    for c in case.plan.columns:
        if not case.learn:
            gradient = 0.0
        elif c.block == "readout":
            gradient = scale * c.scale * 2.0 ** -(f["delta"] - hw.readout_shift + f["state"])
        else:
            bits = grain.get(c.block, 0) + stronger.get(c.block, 0)
            gradient = -scale * c.scale * _inverse(case, f, hw) * 2.0**-bits
        placements.append(Placement(
            c.block, c.start, c.count, tuple(n for n, *_ in c.parameters), tuple(t for _, t, _ in c.parameters),
            tuple(w for *_, w in c.parameters), tuple(n in case.graph.learned for n, *_ in c.parameters), c.scale,
            f[c.block] + hw.width, gradient))
    return tuple(placements)


def _report(case: Case) -> dict:
    ranges = {name: float(np.abs(v).max(initial=0.0)) for name, v in case.samples.values.items()}
    return {
        "board": case.board.name,
        **describe(case.written, case.cost, case.learn, case.reading and case.reading.graph,
                   case.joins and case.joins.graph),
        "ranges": {**ranges, "q": max(ranges[s] for s in case.graph.states), "p": case.samples.p,
                   "z": max([ranges[p.acc] for p in case.passes if p.opcode == Opcode.FORWARD], default=0.0),
                   "y": float(np.abs(case.samples.y).max())},
    }
