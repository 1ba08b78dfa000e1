"""A register in both directions of a stream."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Beat"]


class Beat(wiring.Component):
    """A word every third cycle at most. It is not kept: ``i`` stands until the cycle after ``o`` has taken it, or is
    withdrawn, and ``o`` is a cycle later."""

    def __init__(self, bits: int):
        super().__init__({"i": In(stream.Signature(bits)), "o": Out(stream.Signature(bits))})

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        taken = o.valid & o.ready
        m.d.sync += [o.payload.eq(i.payload), o.valid.eq(i.valid & ~i.ready & ~taken), i.ready.eq(taken)]
        return m
