"""What a design needs that does not fit, and what would."""

from collections.abc import Mapping

from echolith.boards.catalog import Board
from echolith.boards.report import Timing, Usage
from echolith.compiler.design import Design, Hardware
from echolith.compiler.errors import ResourceError
from echolith.compiler.layout import size
from echolith.sim.arith import gradient_width

__all__ = ["check_multipliers", "multipliers", "shortage", "too_slow"]

_SHAPES = {  # (words, bits) of a block memory
    "ecp5": ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)),
    "ice40": ((256, 16), (512, 8), (1024, 4), (2048, 2)),
}
_LANE_LUTS = {"ecp5": 520, "ice40": 780}  # of one lane, measured
_SMALL = {"ecp5": 512, "ice40": 0}  # bits of a memory that is made of LUTs
_UNIT_WORDS = {"lut": "logic cells", "dsp": "multipliers", "bram": "block memories", "spram": "large memories"}


def blocks(words: int, bits: int, family: str) -> int:
    """Block memories of a memory."""
    if words * bits <= _SMALL[family]:
        return 0
    return min(-(-words // w) * -(-bits // b) for w, b in _SHAPES[family])


def multipliers(hw: Hardware) -> int:
    """Multiplier blocks: two per lane, one per table, one per product of a pipeline, two per vector bank."""
    pipelines = [p for p in (*hw.activate, hw.cost, *hw.step, *hw.drift) if p is not None]
    products = sum(op.kind in ("mul", "table") for p in pipelines for op in p.ops)
    return 2 * hw.lanes + products + 2 * len(hw.vectors) * hw.learn


def lane(design: Design, board: Board, lanes: int, words: int | None = None) -> dict[str, int]:
    """Cells of one lane if there are so many, or if each held ``words`` weights."""
    hw = design.hardware
    words = words or size(max(sum(-(-b.rows // lanes) * b.columns for b in design.blocks), 16))
    tiles = size(max((-(-b.rows // lanes) for b in design.blocks), default=2))
    banks = [(2 * tiles, hw.width), (2 * tiles, hw.width)]
    banks += [(words, gradient_width(hw.width))] if hw.learn else []
    banks += [(words, 2 * hw.width)] if not board.spram else []
    return {"dsp": 2, "lut": _LANE_LUTS[board.family], "bram": sum(blocks(*b, board.family) for b in banks),
            "spram": 2 if board.spram else 0}


def check_multipliers(design: Design, board: Board) -> None:
    """Before minutes of synthesis."""
    needed = multipliers(design.hardware)
    if needed > board.dsp:
        most = (board.dsp - needed + 2 * design.hardware.lanes) // 2
        raise ResourceError(f"the {board.name} has {board.dsp} multipliers and the design needs {needed}: at most "
                            f"{max(most, 0)} lanes fit, not {design.hardware.lanes}")


def shortage(design: Design, board: Board, usage: Usage) -> ResourceError:
    """The error that says what is short, by how much, and what would fit."""
    short = usage.short()
    listed = ", ".join(f"{_UNIT_WORDS[k]}: {usage.used[k]} of {usage.available[k]}, {n} too many"
                       for k, n in short.items())
    if not short:
        full = ", ".join(f"{_UNIT_WORDS[k]}: {usage.used[k]} of {usage.available[k]}" for k in usage.used)
        return ResourceError(f"the design could not be placed on the {board.name} ({full}): try another seed, or "
                             f"fewer units or lanes, not {design.hardware.lanes}")
    return ResourceError(f"the design does not fit the {board.name} ({listed}): {_advice(design, board, usage)}")


def _advice(design: Design, board: Board, usage: Usage) -> str:
    hw = design.hardware
    now = lane(design, board, hw.lanes)

    def fits(lanes: int, each: Mapping[str, int]) -> bool:
        return all(n - hw.lanes * now.get(k, 0) + lanes * each.get(k, 0) <= usage.available[k]
                   for k, n in usage.used.items())

    for lanes in range(hw.lanes - 1, 0, -1):
        if fits(lanes, lane(design, board, lanes)):
            return f"about {lanes} lane{'s' * (lanes > 1)} would fit, not {hw.lanes}"
    words = hw.depths.weights
    while words > 16 and not fits(hw.lanes, lane(design, board, hw.lanes, words)):
        words //= 2
    if words > 16:
        return (f"with {hw.lanes} lanes about {words} weights per lane would fit; use fewer units or rows, "
                f"not {hw.depths.weights} words")
    return f"no number of lanes fits; use fewer units, rows or samples, or a larger board than {board.name}"


def too_slow(board: Board, clock: str, best: Timing, seeds: list[int]) -> ResourceError:
    """The error of a missed clock."""
    tried = ", ".join(map(str, seeds))
    return ResourceError(f"{clock} of the {board.name} needs {best.wanted:.2f} MHz: try other seeds (tried {tried}) "
                         f"or fewer lanes; reached {best.reached:.2f} MHz")
