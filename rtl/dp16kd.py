"""ECP5's block memory with its output register."""

from amaranth.hdl import Array, Cat, ClockSignal, Const, Instance, Module, Signal

from echolith.compiler.mapping import mapped
from echolith.rtl.memory import RegisteredBank
from echolith.rtl.pipeline import delay

__all__ = ["Dp16kd", "blocks"]

_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))  # bits, words


def blocks(width: int, depth: int) -> list[str]:
    """Names of the cells that a `Dp16kd` consists of; none if synthesis makes it of LUTs."""
    best = mapped(max(depth, 2), width, "ecp5")
    if best.kind != "bram":
        return []
    wide, _ = _shape(depth, best.parts)
    return [f"block_{row}_{start // wide}" for row in range(best.parts) for start in range(0, width, wide)]


class Dp16kd(RegisteredBank):
    """As many DP16KD side by side as the width needs, and rows of them, of which a read picks one behind their
    registers: port A writes, port B reads. What synthesis would rather make of LUTs is left to it."""

    def elaborate(self, platform):
        best = mapped(self.depth, self.width, "ecp5")
        if best.kind != "bram":
            return super().elaborate(platform)
        m, (wide, deep) = Module(), _shape(self.depth, best.parts)
        low = (deep - 1).bit_length()
        rows = [Signal(self.width, name=f"row_{row}") for row in range(best.parts)]
        for row, word in enumerate(rows):
            writes = self.w_en & (self.w_addr[low:] == row)
            for start in range(0, self.width, wide):
                stop = min(start + wide, self.width)
                m.submodules[f"block_{row}_{start // wide}"] = self._block(m, wide, word[start:stop], start, writes)
        place = Signal(range(best.parts))
        with m.If(self.r_en):
            m.d.sync += place.eq(self.r_addr[low:])
        m.d.comb += self.r_data.eq(Array(rows)[delay(m, place, 1, "place")])
        return m

    def _block(self, m: Module, bits: int, out, start: int, writes) -> Instance:
        skip = bits.bit_length() - 1  # low address pins that this width does not use
        written, read, word = Signal(36), [Signal(name=f"read_{i}") for i in range(36)], Signal(bits)
        enables = writes.replicate(bits // 9) if bits > 9 else 0  # one for each nine bits
        address_w = Signal(14)
        m.d.comb += [
            word.eq(self.w_data[start:start + len(out)]), written.eq(word),
            address_w.eq(self.w_addr << skip | enables),
        ]
        # Port B's data pins are the upper half of a word of 36 bits.
        m.d.comb += out.eq(Cat(read) if bits == 36 else Cat(read[18:]))
        return _cell(bits, address_w, Cat(Const(0, skip), self.r_addr), written, read, writes, self.r_en)


def _shape(depth: int, parts: int) -> tuple[int, int]:
    """The widest shape of which ``parts`` rows hold ``depth`` words: bits, words."""
    return next((bits, words) for bits, words in _SHAPES if parts * words >= depth)


def _cell(bits: int, address_w, address_r, written, read, w_en, r_en) -> Instance:
    pins: dict = {"i_CLKA": ClockSignal(), "i_CLKB": ClockSignal(), "i_CEA": Const(1), "i_OCEA": Const(1),
                  "i_CEB": r_en, "i_OCEB": Const(1), "i_RSTA": Const(0), "i_RSTB": Const(0),
                  "i_WEA": Const(1) if bits == 36 else w_en, "i_WEB": Const(0)}
    for i in range(14):
        pins |= {f"i_ADA{i}": address_w[i], f"i_ADB{i}": address_r[i] if i < len(address_r) else Const(0)}
    for i in range(18):
        pins |= {f"i_DIA{i}": written[i], f"i_DIB{i}": written[18 + i], f"o_DOA{i}": read[i],
                 f"o_DOB{i}": read[18 + i]}
    for i in range(3):
        pins |= {f"i_CSA{i}": Const(0), f"i_CSB{i}": Const(0)}
    modes = {} if bits == 36 else {"p_WRITEMODE_A": "READBEFOREWRITE", "p_WRITEMODE_B": "READBEFOREWRITE"}
    return Instance(
        "DP16KD", p_DATA_WIDTH_A=bits, p_DATA_WIDTH_B=bits, p_REGMODE_A="OUTREG", p_REGMODE_B="OUTREG",
        p_RESETMODE="SYNC", p_ASYNC_RESET_RELEASE="SYNC", p_GSR="DISABLED", p_CLKAMUX="CLKA", p_CLKBMUX="CLKB",
        p_CSDECODE_A="0b000", p_CSDECODE_B="0b000", **modes, **pins)
