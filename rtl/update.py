"""From the two partial products of gradient * mantissa to the words an update writes."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.sim import arith

__all__ = ["UpdateTail"]


class UpdateTail(wiring.Component):
    """``high`` and ``low`` are the registered products of the gradient's halves with the mantissa.

    Two cycles later ``change`` is valid and ``word`` must hold the master; two cycles after that ``master`` is the
    updated, clipped word and ``clipped`` tells whether clipping changed it.
    """

    latency = 4

    def __init__(self, *, width: int):
        self.width = width
        self.change_bits = 3 * width - 1 - arith.rate_shift(0) + 2
        super().__init__({
            "high": In(signed(2 * width)), "low": In(signed(2 * width)), "coarse": In(2),
            "change": Out(signed(self.change_bits)), "word": In(signed(2 * width)),
            "master": Out(signed(2 * width)), "clipped": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        w = self.width
        product, summed = Signal(signed(3 * w - 1)), Signal(signed(max(2 * w, self.change_bits) + 1))
        m.d.sync += [
            product.eq((self.high << (w - 1)) + self.low),
            self.change.eq(arith.update(product, w, self.coarse)),
            summed.eq(self.word + self.change),
            self.master.eq(arith.sat(summed, 2 * w)),
            self.clipped.eq(arith.clipped(summed, 2 * w)),
        ]
        return m
