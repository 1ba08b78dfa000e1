"""Time for the neuron unit alone: a pass over elements while the array is busy with something else."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Ticks"]


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
