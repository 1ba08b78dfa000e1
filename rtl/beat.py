"""A register in both directions of a stream."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Beat"]


class Beat(wiring.Component):
    """A word every third cycle at most. It is not kept: the payload is that of ``i``, which stands until the cycle
    after ``o`` has taken it."""

    def __init__(self, bits: int):
        super().__init__({"i": In(stream.Signature(bits)), "o": Out(stream.Signature(bits))})

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        m.d.comb += o.payload.eq(i.payload)
        m.d.sync += [o.valid.eq(i.valid & ~i.ready & ~(o.valid & o.ready)), i.ready.eq(o.valid & o.ready)]
        return m
