"""A sum of products that starts again without a cycle's pause: the twin of what a family's carry cells do alone."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Accumulator", "accumulator"]


class Accumulator(wiring.Component):
    """``total`` is the last one plus ``value``, or ``value`` alone if ``first``, a cycle later."""

    def __init__(self, *, bits: int, width: int):
        self.bits, self.width = bits, width
        super().__init__({"value": In(signed(bits)), "first": In(1), "total": Out(signed(width))})

    def elaborate(self, platform):
        m = Module()
        total = Signal.like(self.total, reset_less=True)
        # The adder runs for a first value too: choosing behind it, not before it, fits its own logic cells.
        m.d.sync += total.eq(Mux(self.first, self.value, total + self.value))
        m.d.comb += self.total.eq(total)
        return m


def accumulator(platform, *, bits: int, width: int) -> wiring.Component:
    """What the platform names as ``accumulator``, else an `Accumulator`."""
    return getattr(platform, "accumulator", Accumulator)(bits=bits, width=width)
