"""A multiplier with a register in front and one behind: the twin of what a family has as one cell."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier", "multiplier"]


class Multiplier(wiring.Component):
    """``p`` is ``a * b`` two cycles later."""

    latency = 2

    def __init__(self, *, width: int):
        self.width = width
        super().__init__({"a": In(signed(width)), "b": In(signed(width)), "p": Out(signed(2 * width))})

    def elaborate(self, platform):
        m = Module()
        # Without reset, so that the registers may move into a multiplier cell.
        a, b, p = (Signal.like(port, reset_less=True) for port in (self.a, self.b, self.p))
        m.d.sync += [a.eq(self.a), b.eq(self.b), p.eq(a * b)]
        m.d.comb += self.p.eq(p)
        return m


def multiplier(platform, *, width: int) -> wiring.Component:
    """What the platform names as ``multiplier``, else a `Multiplier`."""
    return getattr(platform, "multiplier", Multiplier)(width=width)
