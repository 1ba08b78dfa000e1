"""Master words in the single-port memory of an iCE40 UltraPlus, and its twin for simulation."""

from amaranth.hdl import ClockSignal, Const, Instance, Module, Mux, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SinglePort", "Spram"]

_WIDTH, _DEPTH = 16, 1 << 14  # of one SB_SPRAM256KA


class _OnePort(wiring.Component):
    """Same members as `memory.Bank`, but one access per cycle: a write wins, and what is read is undefined after it."""

    latency = 1

    def __init__(self, *, width: int, depth: int):
        self.width, self.depth = width, max(depth, 2)
        bits = (self.depth - 1).bit_length()
        super().__init__({
            "r_addr": In(bits), "r_en": In(1), "r_data": Out(width),
            "w_addr": In(bits), "w_data": In(width), "w_en": In(1),
        })

    def _address(self):
        return Mux(self.w_en, self.w_addr, self.r_addr)


class Spram(_OnePort):
    """As many SB_SPRAM256KA side by side as the width needs. Power-up contents are undefined.

    Raises
    ------
    ValueError
        If the depth is above 16384.
    """

    def __init__(self, *, width: int, depth: int):
        if depth > _DEPTH:
            raise ValueError(f"an SPRAM has {_DEPTH} words; spread the rows over more lanes, not {depth} words in one")
        super().__init__(width=width, depth=depth)

    def elaborate(self, platform):
        m = Module()
        address = Signal(range(_DEPTH))
        m.d.comb += address.eq(self._address())
        for start in range(0, self.width, _WIDTH):
            stop = min(start + _WIDTH, self.width)
            word = Signal(_WIDTH, name=f"word_{start}")
            m.d.comb += self.r_data[start:stop].eq(word)
            m.submodules[f"spram_{start // _WIDTH}"] = Instance(
                "SB_SPRAM256KA", i_CLOCK=ClockSignal(), i_CHIPSELECT=self.w_en | self.r_en, i_WREN=self.w_en,
                i_MASKWREN=Const(0xF, 4), i_ADDRESS=address, i_DATAIN=self.w_data[start:stop],
                o_DATAOUT=word, i_STANDBY=Const(0), i_SLEEP=Const(0), i_POWEROFF=Const(1))  # low would switch it off
        return m


class SinglePort(_OnePort):
    """What `Spram` does, in a simulator: a word that must not be used reads as its complement."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = memory.Memory(shape=unsigned(self.width), depth=self.depth, init=[])
        read, write, spoilt = words.read_port(), words.write_port(), Signal()
        m.d.comb += [
            read.addr.eq(self._address()), read.en.eq(self.r_en | self.w_en),
            write.addr.eq(self.w_addr), write.data.eq(self.w_data), write.en.eq(self.w_en),
            self.r_data.eq(Mux(spoilt, ~read.data, read.data)),
        ]
        with m.If(self.w_en | self.r_en):
            m.d.sync += spoilt.eq(self.w_en)
        return m
