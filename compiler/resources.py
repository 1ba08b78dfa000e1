"""Cells of an FPGA that a core will take, before synthesis: counted where the tools leave no choice, else fitted.

Multipliers and memories are counted. Logic cells and flip-flops are sums over what `inventory` finds, with one
coefficient per kind of part: bench/resources.py fits them to stored builds and writes them to resources.json, with the
largest error on any build, fitted or kept from the fit.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from echolith.boards.catalog import Board
from echolith.compiler.bits import circuits
from echolith.compiler.design import Hardware
from echolith.compiler.inventory import banks, copies, multipliers
from echolith.compiler.mapping import mapped

__all__ = ["KINDS", "MODEL", "Resources", "features", "resources"]

MODEL = Path(__file__).with_name("resources.json")
KINDS = {"lut": "logic cells", "ff": "flip-flops", "dsp": "multipliers", "bram": "block memories",
         "spram": "large memories"}
# Share of the logic cells that placement and routing can be trusted to use. Measured on iCE40 only, where 94 % are.
_FILL = {"ecp5": 0.85, "ice40": 1.0}


@dataclass(frozen=True)
class Resources:
    """Cells by kind, see `KINDS`; ``error`` is the relative error of the fitted kinds."""

    used: dict[str, int]
    available: dict[str, int]
    error: dict[str, float]
    fill: float  # share of the logic cells to count on

    @property
    def load(self) -> float:
        """Largest share of a kind that is used."""
        return max(n / self.available[kind] for kind, n in self.used.items())

    def shortage(self, *, at_best: bool = False) -> str:
        """What does not fit, in words; "" if all does.

        Either for certain (``at_best``: every error goes the right way and all cells can be used), or possibly (every
        error goes the wrong way and only the trusted share of the logic cells can be used).
        """
        found = []
        for kind, used in self.used.items():
            word, need, room = "", used, self.available[kind]
            if kind in self.error and at_best:
                word, need = "at least ", round(used / (1 + self.error[kind]))
            elif kind in self.error:
                word, need, room = "up to ", round(used * (1 + self.error[kind])), int(room * self.fill)
            if need > room:
                found.append(f"{KINDS[kind]}: {word}{need} of {room}")
        return ", ".join(found)


def resources(hw: Hardware, board: Board) -> Resources:
    """What ``hw`` takes of ``board``."""
    model, found = _model(), features(hw, board)
    used = {kind: round(sum(c * found[name] for name, c in model[kind]["coefficients"].items()))
            for kind in ("lut", "ff")}
    used["ff"] += copies(hw)
    used |= {"dsp": multipliers(hw)["total"], **_memories(hw, board)}
    available = {"lut": board.luts, "ff": board.luts, "dsp": board.dsp, "bram": board.brams, "spram": board.sprams}
    if not board.sprams:
        del used["spram"], available["spram"]
    return Resources(used, available, {k: model[k]["error"][board.family] for k in ("lut", "ff")}, _FILL[board.family])


def features(hw: Hardware, board: Board) -> dict[str, float]:
    """Parts that logic cells and flip-flops are spent on, by name: counts, or bits."""
    w, parts = hw.width, circuits(hw)
    memories = [(b, mapped(b.words, b.bits, board.family)) for b in banks(hw)
                if not (board.sprams and b.name == "weights")]
    registers = sum(c.registers for c in parts)
    small = [(b, m) for b, m in memories if m.kind == "lutram"]
    multiplying = hw.lanes / (2 if hw.packed else 1)  # lanes, or pairs that share multipliers and updates
    return {
        "core": 1, "learning": hw.learn, "general": hw.general, "overlap": hw.overlap, "paired": hw.paired,
        "lane sums": hw.lanes * (hw.accumulator - hw.dropped), "lane updates": multiplying * w * hw.learn,
        "vector updates": len(hw.vectors) * w * hw.learn,
        "small memories": sum(b.copies * m.cells for b, m in small),
        "small words": sum(b.copies * b.bits for b, _ in small),
        "joined memories": sum(b.copies * b.bits * (m.parts - 1) for b, m in memories),
        "operations": sum(c.sums + c.limits for c in parts), "choice": sum(c.choice for c in parts),
        "registers": registers,
        # On iCE40 a flip-flop without logic before it takes a logic cell too, and multipliers register their products.
        "lone registers": registers if board.family == "ice40" else 0,
        "products": 4 * w * multiplying + sum(c.products for c in parts) if board.family == "ecp5" else 0,
    }


def _memories(hw: Hardware, board: Board) -> dict[str, int]:
    """Block memories, and the large ones that hold the lanes' weights where there are any."""
    found = {"bram": 0, "spram": 0}
    for bank in banks(hw):
        if board.sprams and bank.name == "weights":
            found["spram"] += bank.copies * -(-bank.bits // 16) * -(-bank.words // (1 << 14))
            continue
        memory = mapped(bank.words, bank.bits, board.family)
        found["bram"] += bank.copies * memory.cells * (memory.kind == "bram")
    return found


@functools.cache
def _model() -> dict:
    return json.loads(MODEL.read_text())
