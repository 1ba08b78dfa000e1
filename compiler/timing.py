"""Latencies of all parts, counted from what they are made of.

`tails` restates nothing: each tail is the sum of the latencies of the parts that a sweep's last element passes.
"""

from dataclasses import dataclass
from functools import cache

from echolith.compiler.design import Hardware
from echolith.compiler.isa import Dest
from echolith.compiler.pipeline import latency

__all__ = [
    "BURST", "GROUP", "LEADING", "Tails", "ahead", "arrived", "broadcast", "costed_stage", "drained", "fetched",
    "filling", "follows", "group_levels", "handed", "host_read", "lined", "operand_stage", "operands", "picked",
    "reuse", "scaled", "second_column", "second_operand", "skew", "summed", "tails", "trailing", "tree_levels",
    "updated", "worded",
]

GROUP = 4  # lanes that share a copy of the broadcast registers
HANDING = 8  # groups beyond which these hand on what they get; fewer gain at most a thousandth of the cycles
TRAILING = 4  # stages from the force to the end, without those of the drift
LEADING = 10  # cycles from a cost derivative to the exponent that follows from it
BURST = 2  # from a column's sums to the neuron unit's, if none wait before them


@dataclass(frozen=True)
class Tails:
    """Cycles after the last address of a sweep until its last write is done."""

    drive: int
    hidden: int
    cost: int
    outer: int
    nudge: int
    step: int
    units: int
    update: int
    fetch: int
    value: int  # FORWARD to the vectors
    step_value: int  # TRANSPOSED, UNITS: to the vectors, to the row operands
    step_rows: int
    units_value: int
    units_rows: int
    # Until the row unit takes another sweep's sums; and from there until a sweep may start that reads row operands.
    drive_taken: int
    hidden_taken: int
    cost_taken: int
    settled: int


# Register stages of the array are counted from the cycle in which the sweep engine holds an address.


def broadcast(hw: Hardware) -> int:
    """Register stages of addresses, controls and operands on their way to the lanes, the first group of them."""
    return int(hw.overlap) * (1 if hw.lanes <= 2 * GROUP else 2)


def skew(hw: Hardware) -> int:
    """Cycles by which the last group of lanes is behind the first: of many groups each hands on what it gets. Row
    operands come to the last lanes last, as their sums leave them last; so they read them last, too."""
    groups = -(-hw.lanes // GROUP)
    return groups - 1 if hw.paired and groups > HANDING else 0


def fetched(hw: Hardware) -> int:
    """Stage of words read for the multipliers; memories have an output register where latency is hidden."""
    return 1 + hw.overlap


def lined(hw: Hardware) -> int:
    """Stage of a line of samples: its address has a register too where latency is hidden, for the memory is wide."""
    return fetched(hw) + hw.overlap


def picked(hw: Hardware) -> int:
    """Cycles from a sample's word being asked for until it is read and picked out of its line."""
    return lined(hw) + hw.overlap


def operands(hw: Hardware) -> int:
    """Stage of the multipliers' operands: weights of packed products are rounded and wait for their neighbours."""
    return fetched(hw) + (2 if hw.packed else 0)


def summed(hw: Hardware) -> int:
    """Stage of sums: operand, product, both products apart if it is packed, accumulator."""
    return operands(hw) + 3 + bool(hw.packed)


def updated(hw: Hardware) -> int:
    """Stage in which an update's masters are written: operand, product, sum, shifted, rounded, sum, clipped."""
    return operands(hw) + 7 + worded(hw)


def worded(hw: Hardware) -> int:
    """Cycles from a gradient word's being there until it is multiplied: a register on the way, which only updates wait
    for. Packed products have picked it from two by then."""
    return int(hw.overlap and not hw.packed)


def reuse(hw: Hardware) -> int:
    """Cycles after which a gradient word may be added to again."""
    return operands(hw) + 2


def handed(hw: Hardware) -> int:
    """Cycles from the strobe of a FORWARD sweep to its first sums' at the row unit, without those of its columns."""
    return broadcast(hw) + summed(hw)


def drained(hw: Hardware, dest: int, rows: int) -> int:
    """Cycles in which the sums of a tile of so many rows leave the lanes: one after the other, or those of both slots
    together."""
    return rows * (1 if hw.paired and dest == Dest.DRIVE else 2)


def scaled(hw: Hardware) -> int:
    """Cycles from a row operand to its being written; it is being scaled meanwhile, and its twin comes a cycle later.
    Amount, shifted, clipped; with overlap also dropped, rounded."""
    return 2 + 2 * hw.overlap


def host_read(hw: Hardware) -> int:
    """Cycles from an index in the window until a lane's word is there: the lane, its group, the bank."""
    return 3 + 2 * hw.overlap + broadcast(hw) + skew(hw) + fetched(hw) + (hw.lanes > GROUP)


def filling(hw: Hardware, rows):
    """Whether tiles of so many rows, a number or a value of gates, have some in the last group of lanes, which is
    behind the others."""
    return skew(hw) > 0 and rows > skew(hw) * GROUP


def ahead(hw: Hardware, rows: int) -> int:
    """Cycles from the last that a sweep may not start in until it reads the last row operand of tiles of so many rows:
    decided, started, at its first element, and that one's stages. With `Hardware.paired` it may start before they are
    written."""
    late = min(skew(hw), _settling(hw) - 3 - operands(hw)) if filling(hw, rows) else 0
    return (3 + operands(hw) - 1 + late) * hw.paired


def _settling(hw: Hardware) -> int:
    """Cycles from the last sum leaving the lanes until the row operand that comes of it is written."""
    return broadcast(hw) + summed(hw) + fetched(hw) + max(map(latency, hw.activate)) + _twinned(hw) + 1


def _twinned(hw: Hardware) -> int:
    """Cycles from a row operand to its scaled twin."""
    return scaled(hw) if hw.learn and hw.cost else 0


def group_levels(hw: Hardware) -> int:
    """Register levels of the adder tree over a group of lanes, or over all of them, or their pairs."""
    lanes = GROUP if skew(hw) else hw.lanes
    return ((lanes // 2 if hw.packed else lanes) - 1).bit_length()


def tree_levels(hw: Hardware) -> int:
    """Cycles from the first lanes' products to the sum over all: where groups are one behind the other, each adds its
    own to the sum of those before."""
    return group_levels(hw) + (1 + skew(hw) if skew(hw) else 0)


def second_column(hw: Hardware) -> int:
    """Cycles from a column's sums to those of the one that packed products made with it."""
    return 0 if not hw.packed else 1 if hw.burst else 2


def arrived(hw: Hardware) -> int:
    """Cycles from an element of a TRANSPOSED sweep to the neuron unit's, with its column's sums."""
    return broadcast(hw) + summed(hw) + tree_levels(hw) + second_column(hw) + (BURST if hw.burst else 0)


def follows(hw: Hardware) -> int:
    """Cycles for which the neuron unit may still be at work when a TRANSPOSED sweep starts, of at least as many columns
    and two more: its first sums come later. Gradients of vectors follow two cycles behind."""
    return max(arrived(hw) - 3, 0) * hw.paired + trailing(hw)


def trailing(hw: Hardware) -> int:
    """Cycles by which the neuron unit's stages from the force on get their command later than those before, so that the
    next sweep's sums may come earlier. It matters where nothing else is waited for."""
    return min(TRAILING, operand_stage(hw) + max(map(latency, hw.step)) - 1) if skew(hw) else 0


@cache
def tails(hw: Hardware, rows: int) -> Tails:
    """Of sweeps over tiles of so many rows: those of FORWARD grow by `drained`."""
    far = broadcast(hw)
    # Drain register, then two slots of every row; the row unit reads drives beside them.
    drain = far + summed(hw) + drained(hw, Dest.HIDDEN, rows) + fetched(hw)
    activated = max(map(latency, hw.activate))
    step = operand_stage(hw) + step_latency(hw)  # state read, pipeline, write
    alone = step + hw.paired  # a pass begins a cycle behind its start
    sums = arrived(hw)
    # Registered result of slot b, written. A vector's gradient follows two cycles later: before any next sweep's.
    value = operand_stage(hw) + max(map(latency, hw.step)) + 2
    twin = _twinned(hw)
    # With `Hardware.paired` a sweep that scales by the exponents may follow at once.
    leads = LEADING if hw.paired and hw.learn else 0
    hidden, cost = drain + activated + twin + 1, drain + (costed_stage(hw) + twin + 1 + leads if hw.cost else 0)
    # A drive is written `fetched` + 2 cycles behind its strobe, and may be read then.
    taken = drained(hw, Dest.HIDDEN, rows) if hw.paired else hidden
    drive = max(drained(hw, Dest.DRIVE, rows), fetched(hw) + 2) if hw.paired else drain + 1
    return Tails(
        drive=drive,
        hidden=hidden,  # scaled copy, write
        cost=cost,
        drive_taken=drive, hidden_taken=taken, cost_taken=taken + cost - hidden,
        settled=hidden - taken - ahead(hw, rows),
        outer=far + summed(hw) + 2,  # difference as the sum, new word, written
        nudge=sums + 3 + hw.overlap + trailing(hw),
        step=sums + step,
        units=alone,
        # Written; clipped words counted, by groups, then of all.
        update=far + skew(hw) + updated(hw) + 3 + (hw.lanes > GROUP),
        fetch=picked(hw) + 1 + hw.paired,  # written, with a register before the inputs' buffers
        value=drain + activated,
        step_value=sums + value,
        step_rows=sums + value + twin + 2,  # row operand, scaled twin
        units_value=value - 1,  # the last element's own second cycle is slot b's
        units_rows=value + twin + 1,
    )


def costed_stage(hw: Hardware) -> int:
    """Cycles from a sum to its cost derivative. Where sweeps follow each other at once, an activation is no later."""
    if hw.cost is None:
        return 0
    return max(latency(hw.cost), max(map(latency, hw.activate)) if hw.paired else 0)


def second_operand(hw: Hardware) -> bool:
    """Whether step pipelines have one: it is read after the first."""
    return any(name == "r" for pipeline in hw.step for name, _ in pipeline.inputs)


def operand_stage(hw: Hardware) -> int:
    """Cycles from an element's read to its operands at the step pipelines. The word whose turn it is has a register,
    but with one operand and without overlap."""
    return fetched(hw) + (hw.overlap or second_operand(hw))


def step_latency(hw: Hardware) -> int:
    """Force, with overlap gated, force and nudge, kick, drift, write of one element; slot b is a cycle behind."""
    return max(map(latency, hw.step)) + hw.overlap + 2 + max(map(latency, hw.drift)) + 1 + 2
