"""Numbers of a design before synthesis: cycles, speed, memories, cells of the board."""

from dataclasses import asdict, dataclass

from echolith.boards.catalog import board
from echolith.compiler.cycles import cycles
from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.inventory import multipliers
from echolith.compiler.resources import resources
from echolith.compiler.scalars import real
from echolith.compiler.utilisation import utilisation
from echolith.host.pace import paces
from echolith.sim.arith import gradient_width

__all__ = ["BATCH", "Memory", "estimate", "memories"]

BATCH = 32  # samples between updates in every figure that depends on it
_BAUD = 1_000_000


@dataclass(frozen=True)
class Memory:
    """A memory of the chip: ``copies`` of ``words`` of ``bits``, of which this network uses ``used`` each."""

    name: str
    copies: int
    words: int
    used: int
    bits: int


def memories(design: Design) -> list[Memory]:
    """Every memory that the host can address, as synthesised."""
    hw, d = design.hardware, design.hardware.depths
    lane = max((b.base + (design.tiles(b) - 1) * b.stride + b.columns for b in design.blocks), default=0)
    vector = max((v.length for v in design.vectors), default=0)
    results = min(d.results, design.result_rows * design.outputs * 2)
    contexts = 4 if hw.learn else 2  # the pair and the inputs; for learning the echoes of both samples
    found = [
        Memory("weights", hw.lanes, d.weights, lane, 2 * hw.width),
        Memory("positions", 2, 4 * d.units, contexts * design.units, hw.width),
        Memory("momenta", 2, 4 * d.units, (contexts - 1) * design.units, hw.width),
        Memory("data", 1, d.data, min(design.record.lines, d.data), hw.data_width),
        Memory("order", 1, d.order, 2, (d.data - 1).bit_length() + 1),
        Memory("results", 1, d.results, results, hw.width),
        Memory("program", 1, d.program, len(design.program), 32),
        Memory("tables", hw.tables, 1 << hw.segments, 1 << hw.segments, 2 * hw.width),
        Memory("index", bool(d.index), d.index, len(design.index), (d.units - 1).bit_length()),
        Memory("vectors", len(hw.vectors), d.units, vector, 2 * hw.width),
    ]
    if hw.learn:
        bits = gradient_width(hw.width)
        found.insert(1, Memory("gradients", hw.lanes, d.weights, lane, bits))
        found.append(Memory("deltas", int(d.deltas > 0), d.deltas, results << hw.paired, hw.width))
        found.append(Memory("vector gradients", len(hw.vectors), d.units, vector, bits))
    return [m for m in found if m.copies]


def estimate(design: Design, *, baud: int = _BAUD, clock: float | None = None) -> dict:
    """What the design will cost and how fast it will be, without running anything.

    Parameters
    ----------
    design : Design
    baud : int
        Bits per second of the serial link.
    clock : float, optional
        Hz of the core; the board's usual clock if None.

    Returns
    -------
    dict
        Plain JSON. ``cycles`` are exact, from GO to DONE: of a predicted pair of samples, halved; of a batch of
        ``batch`` learned samples, and of one with the un-nudged copy, per sample; of an update.
        ``samples_per_second``: ``chip`` is the core alone; the others are those of a session in batches, by the
        words that it exchanges at ``baud`` beside the core's work, ``held`` with the data set on the chip, ``link``
        with every sample sent. A host that takes time of its own is slower.
        ``resources`` are cells by kind, used and available; ``error`` is the relative error of those that are fitted,
        not counted (see `compiler.resources`).

    Raises
    ------
    RangeError
        ``baud`` or ``clock`` is no positive number.
    """
    hw, target = design.hardware, board(design.report["board"])
    clock = target.clock if clock is None else clock
    for name, value, text in (("baud", baud, "bits per second"), ("clock", clock, "Hz")):
        if (number := real(value)) is None or number <= 0:
            raise RangeError(f"{name} must be a positive number of {text}, not {value!r}")
    spent = {"predict_sample": cycles(design.program, design.entries["predict"], hw) / 2}
    if hw.learn:
        entry, pairs = design.entries[design.learning(1)], design.rule.runs * BATCH // 2
        spent["learn_sample"] = cycles(design.program, entry, hw, pairs) / BATCH
        spent["checked_sample"] = cycles(design.program, design.entries["learn"], hw, pairs) / BATCH
        spent["update"] = cycles(design.program, design.entries["update"], hw)
    cells = resources(hw, target)
    return {
        "board": target.name, "lanes": hw.lanes, "learns": hw.learn, "clock_mhz": clock / 1e6, "baud": baud,
        "batch": BATCH, "cycles": spent, "samples_per_second": _speeds(design, clock, spent, baud),
        "resources": {"used": cells.used, "available": cells.available, "error": cells.error},
        "multipliers": {**multipliers(hw), "available": target.dsp}, "memory": [asdict(m) for m in memories(design)],
        "memory_bits": sum(m.copies * m.words * m.bits for m in memories(design)),
        "mac_utilisation": utilisation(design, BATCH),
        "mac_utilisation_with_copy0": utilisation(design, BATCH, with_copy0=True),
        "hardware_id": f"{hw.hardware_id:08x}", "program_id": f"{design.program_id:08x}",
    }


def _speeds(design: Design, clock: float, spent: dict[str, float], baud: int) -> dict[str, dict[str, float]]:
    found = {}
    for name in ("predict", "learn"):
        if f"{name}_sample" in spent:
            one = spent[f"{name}_sample"] + (spent["update"] / BATCH if name == "learn" else 0)
            found[name] = {"chip": clock / one, **paces(design, name, BATCH, baud=baud, clock=clock)}
    return found
