"""What the units behind the array need to know of the sweeps on their way to them."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Launched"]


class Launched(wiring.Component):
    """The oldest of at most two words; if only one is ever on its way (not ``two``), of one.

    Members
    -------
    start, i : In
        Strobe: a sweep sets out; its word.
    taken : In(1)
        Strobe: the sums of the oldest come.
    o : Out
        Its word.
    """

    def __init__(self, bits: int, *, two: bool):
        self.two = two
        super().__init__({"start": In(1), "i": In(bits), "taken": In(1), "o": Out(bits)})

    def elaborate(self, platform):
        m = Module()
        if not self.two:
            with m.If(self.start):
                m.d.sync += self.o.eq(self.i)
            return m
        second, count = Signal.like(self.o), Signal(2)
        m.d.sync += count.eq(count + self.start - self.taken)
        with m.If(self.taken):
            m.d.sync += self.o.eq(second)
        with m.If(self.start):
            with m.If(count == self.taken):
                m.d.sync += self.o.eq(self.i)
            with m.Else():
                m.d.sync += second.eq(self.i)
        return m
