"""Time for what goes on while the array is busy with something else."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Ticks", "Words"]


class Ticks(wiring.Component):
    """``length`` ticks, two cycles apart, the first in the cycle after ``start``."""

    def __init__(self, bits: int):
        super().__init__({"start": In(1), "length": In(bits), "tick": Out(1)})

    def elaborate(self, platform):
        m = Module()
        left, second = Signal.like(self.length), Signal()
        m.d.comb += self.tick.eq((left != 0) & ~second)
        with m.If(self.start):
            m.d.sync += [left.eq(self.length), second.eq(0)]
        with m.Elif(left != 0):
            m.d.sync += [second.eq(~second), left.eq(left - second)]
        return m


class Words(wiring.Component):
    """``length`` words of slot a, then as many of slot b, one in every cycle in which it is ``there``.

    Members
    -------
    running : Out(1)
        From the cycle after ``start`` on.
    valid, index, second, last : Out
        The word taken in this cycle, its slot, and whether it is that slot's last.
    """

    def __init__(self, bits: int):
        super().__init__({"start": In(1), "length": In(bits), "there": In(1), "running": Out(1), "valid": Out(1),
                          "index": Out(bits), "second": Out(1), "last": Out(1)})

    def elaborate(self, platform):
        m = Module()
        length = Signal.like(self.length)
        m.d.comb += [self.valid.eq(self.running & self.there), self.last.eq(self.index + 1 == length)]
        with m.If(self.start):
            m.d.sync += [self.running.eq(1), length.eq(self.length), self.index.eq(0), self.second.eq(0)]
        with m.Elif(self.valid):
            m.d.sync += self.index.eq(self.index + 1)
            with m.If(self.last):
                m.d.sync += [self.index.eq(0), self.second.eq(1), self.running.eq(~self.second)]
        return m
