"""The hardware that a network needs: circuits, shifts, depths of the memories."""

import dataclasses

import numpy as np

from echolith.compiler.case import Case
from echolith.compiler.circuits import Circuits
from echolith.compiler.design import Depths, Design, Hardware
from echolith.compiler.errors import CompileError, ResourceError
from echolith.compiler.isa import Opcode
from echolith.compiler.layout import size
from echolith.compiler.pipeline import Pipeline
from echolith.compiler.quantise import NUDGE, Formats, Quantised
from echolith.compiler.reads import NUDGES
from echolith.compiler.record import Record
from echolith.compiler.sweep import Sweep

__all__ = ["NUDGE", "differences", "hardware", "record"]



def hardware(case: Case, formats: Formats, q: Quantised, like: Design | None) -> Hardware:
    """What becomes gates; on the hardware of ``like``, what that would have to be."""
    f, w = formats.fractions, case.board.width
    general = bool(like and like.hardware.general) or _general(case, q.circuits, q.drift)
    depths = _depths(case, q.circuits, formats)
    depths = dataclasses.replace(depths, deltas=_deltas(case, q.circuits, paired=case.board.overlap and not general))
    if like is not None:
        given = like.hardware.depths
        short = {name: getattr(depths, name) for name in ("weights", "units", "rows", "tiles", "outputs", "index")
                 if getattr(depths, name) > getattr(given, name)}
        depths = dataclasses.replace(given, **short)
    response, shift = w, f["u"] - f["input"]
    if formats.packed and general:
        raise CompileError("precision: packed products need an energy of one coupling and one drive, a readout that is "
                           f"a matrix times the state, and a uniform mass; leave product out, not {formats.packed}")
    if formats.packed and case.decays:
        raise CompileError("precision: packed products have no weight decay; leave product out, or weight_decay=False, "
                           f"not {formats.packed}")

    def staged(pipelines: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
        return tuple(dataclasses.replace(p, deep=case.board.overlap) for p in pipelines)

    return Hardware(
        width=w, lanes=case.lanes, learn=case.learn, accumulator=max(formats.accumulator, case.accumulator),
        segments=formats.segments, tables=len(q.tables), data_width=case.board.line, depths=depths,
        general=general,
        input_shift=shift, drive_shift=f["drive"] + f["input"] + shift - f["z"],
        activate=staged(q.activate), cost=staged((q.cost,))[0] if q.cost else None, step=staged(q.step),
        drift=staged(q.drift),
        nudge_shift=_nudge_shift(case, q, like),
        delta_shift=like.hardware.delta_shift if like else response - (w - NUDGE),
        readout_shift=like.hardware.readout_shift if like else 0,
        vectors=tuple(case.units > 1 and np.size(case.flow.values[name]) == 1
                      for name in case.vectors) if like is None or case.units > 1 else like.hardware.vectors,
        overlap=case.board.overlap,
        repeat=any(map(_repeats, _sweeps(q.circuits))) or bool(q.circuits.backs and case.units > case.lanes)
        or bool(case.joins and case.joins.lower > case.lanes)
        or bool(like and like.hardware.repeat),
        adding=any(s.learn or s.opcode == Opcode.OUTER for s in (*q.circuits.backs, *q.circuits.errors))
        or bool(like and like.hardware.adding),
        input_bits=formats.input_bits, target_bits=formats.target_bits, packed=formats.packed,
        shrinks=case.decays or bool(like and like.hardware.shrinks),
        stacked=bool(q.circuits.copies and case.learn) or bool(like and like.hardware.stacked),
    )


def _nudge_shift(case: Case, q: Quantised, like: Design | None) -> int:
    """From sums to nudges. A read-out of its own has exact scales; else ranging may change them."""
    f, w = q.circuits.fractions, case.board.width
    if q.circuits.backs:
        return f[NUDGES] + f["nudge"] - f["state"]
    return like.hardware.nudge_shift if like else f["readout"] + w - NUDGE - (f["state"] - 3)


def _sweeps(circuits: Circuits) -> tuple[Sweep, ...]:
    return (*circuits.sweeps, *circuits.reads, *circuits.backs, *circuits.levels, *circuits.feeds, *circuits.copies,
            *circuits.errors)


def _repeats(sweep: Sweep) -> bool:
    return bool(sweep.repeat) or (sweep.gather and sweep.opcode in (Opcode.FORWARD, Opcode.OUTER))


def _general(case: Case, circuits: Circuits, drift: tuple[Pipeline, ...]) -> bool:
    """Whether a sweep needs an offset, a choice of circuit, or another way for its result than the built-in one. Where
    sweeps overlap, inputs come to the built-in ones through drives alone."""
    if case.board.overlap and any(s.input and s.opcode == Opcode.FORWARD for s in circuits.sweeps):
        return True
    if len(drift) > 1 or any(len(p.inputs) > 1 for p in drift):
        return True
    return any(s.kind or s.source or s.first or s.second or s.place or s.tile or s.drive or s.value or s.force
               or s.gather or s.gather_second or (s.rows and s.opcode != Opcode.FORWARD)
               for s in _sweeps(circuits))


def _depths(case: Case, circuits: Circuits, formats: Formats) -> Depths:
    n, tiles = case.graph, [-(-b.rows // case.lanes) for b in case.plan.blocks] or [1]
    outputs = -(-n.outputs // case.lanes) * case.lanes
    words = 2 * n.outputs if n.readout else 2 * case.units  # of one read-out of a pair
    words *= case.dynamics.steps if case.dynamics.cost_at == "every" else 1
    if words > case.board.data_bits // 32:
        raise ResourceError(f"the outputs of two samples must fit the result memory: read out fewer steps or outputs; "
                            f"{case.board.name} has room for {case.board.data_bits // 32} words, not {words}")
    lines = record(case, case.board.line, formats.input_bits, formats.target_bits).lines
    data = min(size(max(case.capacity * lines, 16)), case.board.data_bits // case.board.line)
    return Depths(
        weights=size(max(case.plan.used, 16)),
        units=size(max(circuits.elements, n.inputs + 1, _walked(case))),
        rows=size(max(max(tiles) * case.lanes, circuits.drives)),
        tiles=size(max(*tiles, circuits.tiles)), outputs=size(max(outputs, 2)),
        data=data, order=min(size(max(data // lines, 64)), 4096), results=max(case.board.results, size(words)),
        program=256, index=size(len(circuits.index)) if circuits.index else 0)


def _deltas(case: Case, circuits: Circuits, paired: bool) -> int:
    """Words for the cost derivatives of all read-outs, where there is room to keep them and copy 0 need not run."""
    words = 2 * case.graph.outputs * case.dynamics.steps
    able = case.learn and case.board.overlap and case.dynamics.cost_at == "every" and not circuits.backs
    return size(words) << paired if able and words <= case.board.results else 0


def record(case: Case, line: int, input_bits: int, target_bits: int) -> Record:
    """Where the data words of a sample are."""
    reads = case.samples.targets.shape[1] if case.learn else 0
    return Record(line, (input_bits, target_bits), case.dynamics.steps, case.graph.inputs, case.graph.outputs, reads)


def _walked(case: Case) -> int:
    """Nudges that a read-out of its own writes: whole walks of the lanes' matrix."""
    units = case.units if case.reading is not None else case.joins.lower if case.joins is not None else 0
    return -(-units // case.lanes) * case.lanes


def differences(wanted: Hardware, given: Hardware) -> list[str]:
    """Fields in which the hardware that the network needs differs."""
    lines = []
    for f in dataclasses.fields(Hardware):
        a, b = getattr(wanted, f.name), getattr(given, f.name)
        if f.name == "depths":
            lines += [f"{d.name} needs {getattr(a, d.name)} words, not {getattr(b, d.name)}"
                      for d in dataclasses.fields(Depths) if getattr(a, d.name) != getattr(b, d.name)]
        elif a != b:
            simple = isinstance(a, (int, bool))
            lines.append(f"{f.name} must be {a}, not {b}" if simple else f"{f.name} is another circuit")
    return lines
