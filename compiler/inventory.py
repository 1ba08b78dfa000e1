"""Memories and multipliers of a netlist, counted from its `Hardware` alone."""

from dataclasses import dataclass

from echolith.compiler.bits import circuits
from echolith.compiler.design import Hardware
from echolith.compiler.isa import BUFFERS
from echolith.compiler.timing import GROUP
from echolith.host.frames import MAX_WORDS
from echolith.sim.arith import gradient_width

__all__ = ["TARGET_BITS", "Bank", "banks", "copies", "multipliers"]

TARGET_BITS = 3  # of a word of the target memory at least: of fewer, yosys makes registers and multiplexers

_CONTROL = 12  # bits of `rtl.lane.LaneControl`
_FRAMES = 2 * (4 + 4 * MAX_WORDS)  # bytes of the link's two buffers


@dataclass(frozen=True)
class Bank:
    """``copies`` memories of ``words`` of ``bits``."""

    name: str
    copies: int
    words: int
    bits: int


def banks(hw: Hardware) -> list[Bank]:
    """Every memory of `rtl` that something reads."""
    w, d, gradient = hw.width, hw.depths, gradient_width(hw.width)
    units = _room(d.units)
    vectors = [(f"vector {i}", 2 if shared else units) for i, shared in enumerate(hw.vectors)]
    found = [
        Bank("weights", hw.lanes, d.weights, 2 * w),
        Bank("row operands", 2 * hw.lanes, 2 * _room(d.tiles) << hw.overlap, w),
        Bank("positions", 4 if hw.overlap else 2, 4 * units, w), Bank("momenta", 1, 8 * units, w),
        Bank("drives", int(_driven(hw)), *((BUFFERS * d.rows, 2 * w) if hw.paired else (2 * d.rows, w))),
        Bank("inputs", 2 * hw.paired, BUFFERS * units, w),
        Bank("burst", int(hw.burst), d.units - 1, 2 * (hw.accumulator - hw.dropped)),
        Bank("index", int(d.index > 0), d.index, (units - 1).bit_length()),
        Bank("program", 1, d.program, 32), Bank("order", 1, d.order, (d.data - 1).bit_length() + 1),
        Bank("data", 1, d.data, hw.data_width), Bank("results", 1, d.results, w),
        Bank("tables", 2 * sum(c.kinds["table"] for c in circuits(hw)), 1 << hw.segments, w),
        Bank("frames", 1, _FRAMES, 8), *(Bank(name, 1, words, 2 * w) for name, words in vectors),
    ]
    if hw.learn:
        found += [Bank("gradients", hw.lanes, d.weights, gradient),
                  *(Bank(f"{name} gradients", 1, words, gradient) for name, words in vectors)]
    if hw.learn and hw.cost is not None:
        found += [Bank("nudges", 1, 2 * units, w), Bank("deltas", int(d.deltas > 0), d.deltas, w),
                  Bank("targets", 1, 2 * d.outputs, max(hw.target_bits, TARGET_BITS))]
    return [b for b in found if b.copies]


def _driven(hw: Hardware) -> bool:
    """Whether a circuit of sums has a drive."""
    return any(name == "drive" for p in (*hw.activate, hw.cost) if p for name, _ in p.inputs)


def _room(words: int) -> int:
    """Words that the address reaches."""
    return 1 << (words - 1).bit_length()


def multipliers(hw: Hardware) -> dict[str, int]:
    """Multipliers of the array, two per lane, or per pair of lanes that share them, and of the neuron unit: one per
    product and per table of its pipelines, two per vector parameter for its update."""
    unit = sum(c.kinds["mul"] + c.kinds["table"] for c in circuits(hw)) + 2 * len(hw.vectors) * hw.learn
    array = hw.lanes if hw.packed else 2 * hw.lanes
    return {"array": array, "neuron_unit": unit, "total": array + unit}


def copies(hw: Hardware) -> int:
    """Flip-flops of the registers that groups of lanes have to themselves, but for the first group's."""
    w, d, lane = hw.width, hw.depths, (hw.lanes - 1).bit_length()
    tile, address = (d.tiles - 1).bit_length() + 1, (d.weights - 1).bit_length()
    row = 2 + lane + tile + w + hw.general
    bits = 4 * w + 2 * row + 4 * address + tile + 1 + _CONTROL + hw.lanes.bit_length() + 2 + lane * hw.paired
    return (-(-hw.lanes // GROUP) - 1) * bits * hw.overlap
