"""From the two partial products of gradient * mantissa to the words an update writes."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.sim import arith

__all__ = ["UpdateTail"]


class UpdateTail(wiring.Component):
    """``high`` and ``low`` are the registered products of the gradient's halves with the mantissa.

    Three cycles later ``change`` is valid and ``word`` must hold the master; two cycles after that ``master`` is the
    updated, clipped word and ``clipped`` tells whether clipping changed it. While ``host`` is set, both ``change`` and
    ``master`` are the host's word of the cycle before: one way to the memories for both writers. ``host_data`` must be
    zero otherwise.

    A change of 2^(2 * width) or more clips any master, whatever its lower bits are: only its sign and that it is large
    travel on.
    """

    latency = 5

    def __init__(self, *, width: int):
        self.width = width
        super().__init__({
            "high": In(signed(2 * width)), "low": In(signed(2 * width)), "coarse": In(2),
            "change": Out(signed(2 * width + 2)), "word": In(signed(2 * width)),
            "master": Out(signed(2 * width)), "clipped": Out(1),
            "host": In(1), "host_data": In(signed(2 * width)),
        })

    def elaborate(self, platform):
        m = Module()
        w = self.width
        product = Signal(signed(3 * w - 1), reset_less=True)
        change = Signal.like(self.change, reset_less=True)
        summed = Signal(signed(2 * w + 3), reset_less=True)
        shifted = arith.shifted(product, self.coarse)
        picked = Signal.like(shifted, reset_less=True)
        large, sign, beyond, negative = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            product.eq((self.high << (w - 1)) + self.low), picked.eq(shifted),
            # The one half that rounds is the carry; while the host writes, what was picked is zero.
            change.eq((picked[:2 * w + 3].as_signed() + Cat(1, self.host_data).as_signed()) >> 1),
            large.eq(arith.outside(picked, 2 * w + 2)), sign.eq(picked[-1]),
            summed.eq(self.word + change), beyond.eq(large), negative.eq(sign),
        ]
        with m.If(self.host):
            m.d.sync += [product.eq(0), picked.eq(0)]
        m.d.comb += self.change.eq(change)
        self._master(m, summed, beyond, negative)
        return m

    def _master(self, m: Module, summed, beyond, negative) -> None:
        """Clip, or take the host's word; spelled so that one logic cell per bit decides, and no reset does."""
        w = self.width
        outside = beyond | arith.outside(summed, 2 * w)
        low = Mux(beyond, negative, summed[-1])
        fixed, floor, ceiling = Signal(), Signal(), Signal()
        m.d.comb += [fixed.eq(self.host | outside), floor.eq(~self.host & outside & low),
                     ceiling.eq(~self.host & outside & ~low)]
        limit = Cat(ceiling.replicate(2 * w - 1), floor)
        m.d.sync += [self.master.eq((summed[:2 * w] & ~fixed.replicate(2 * w)) | limit | self.host_data),
                     self.clipped.eq(outside)]
