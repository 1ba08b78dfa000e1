"""Cost derivatives of a pair's read-outs, from the free phase until its echoes ask for them."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.timing import fetched
from echolith.rtl.memory import make_bank

__all__ = ["Kept"]


class Kept(wiring.Component):
    """A stack of read-outs, each with the derivatives of all rows, slot a before slot b. With `Hardware.paired` there
    are two: that of the pair before fills no more.

    Members
    -------
    next : In(1)
        A new pair of samples.
    begin, pop, older, rows : In
        Strobe: a read-out of so many rows is put on top, or the top one taken; ``older``: of the pair before.
    w_en, w_data : In
        The next derivative of what is put.
    r_en, r_data : In, Out
        The next one of what is taken, `timing.fetched` cycles later.
    """

    def __init__(self, hw: Hardware, row_bits: int):
        self.hw = hw
        super().__init__({
            "next": In(1), "begin": In(1), "pop": In(1), "older": In(1), "rows": In(row_bits),
            "w_en": In(1), "w_data": In(hw.width), "r_en": In(1), "r_data": Out(hw.width),
        })

    def elaborate(self, platform):
        m, hw = Module(), self.hw
        depth = hw.depths.deltas
        m.submodules.bank = bank = make_bank(platform, latency=fetched(hw), width=hw.width, depth=depth)
        bits = (depth - 1).bit_length() - hw.paired
        # Of the pair and the one before: words in use, and the half that they are in.
        top, before, half = Signal(bits), Signal(bits), Signal()
        # What is taken may come while the last that was put has yet to be written.
        put, taken = Signal(bits + hw.paired), Signal(bits + hw.paired)
        here, size = Mux(self.older, before, top), Cat(0, self.rows)[:bits]
        below = (here - size)[:bits]
        with m.If(self.begin):
            m.d.sync += Array([top, before])[self.older].eq(Mux(self.pop, below, here + size))
        with m.If(self.begin & self.pop):
            m.d.sync += taken.eq(Cat(below, half ^ self.older))
        with m.Elif(self.r_en):
            m.d.sync += taken.eq(taken + 1)
        with m.If(self.begin & ~self.pop):
            m.d.sync += put.eq(Cat(here, half ^ self.older))
        with m.Elif(self.w_en):
            m.d.sync += put.eq(put + 1)
        with m.If(self.next):
            m.d.sync += [top.eq(0), before.eq(top), half.eq(~half)]
        m.d.comb += [bank.r_addr.eq(taken), bank.r_en.eq(1), bank.w_addr.eq(put), bank.w_en.eq(self.w_en),
                     bank.w_data.eq(self.w_data), self.r_data.eq(bank.r_data)]
        return m
