"""Sums of a transposed sweep that come faster than elements move."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware

__all__ = ["Burst"]


class Burst(wiring.Component):
    """A column's sums may come every cycle and leave every second one, `timing.BURST` cycles later at least."""

    def __init__(self, hw: Hardware):
        self.depth, self.dropped, acc = hw.depths.units, hw.dropped, signed(hw.accumulator)
        super().__init__({
            "i_valid": In(1), "i_a": In(acc), "i_b": In(acc), "o_valid": Out(1), "o_a": Out(acc), "o_b": Out(acc),
        })

    def elaborate(self, platform):
        m = Module()
        rests = Signal()
        bits = len(self.i_a) - self.dropped
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=2 * bits, depth=self.depth)
        m.d.comb += [
            fifo.w_en.eq(self.i_valid), fifo.w_data.eq(Cat(self.i_a[-bits:], self.i_b[-bits:])),
            fifo.r_en.eq(self.o_valid), self.o_valid.eq(fifo.r_rdy & ~rests),
            self.o_a.eq(fifo.r_data[:bits].as_signed() << self.dropped),
            self.o_b.eq(fifo.r_data[bits:].as_signed() << self.dropped),
        ]
        m.d.sync += rests.eq(self.o_valid)
        return m
