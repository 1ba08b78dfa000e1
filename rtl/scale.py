"""One barrel shifter for the words that exponents and gain scale."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.timing import SCALE
from echolith.rtl.pipeline import delay
from echolith.sim import arith
from echolith.sim.model import SHIFT_LIMIT

__all__ = ["EXPONENT_BITS", "Scale"]

EXPONENT_BITS = SHIFT_LIMIT.bit_length()


class Scale(wiring.Component):
    """Results come `SCALE` cycles after the value, the amount is chosen with it.

    Members
    -------
    value, held : In, Out
        ``held`` is the value beside its results.
    exponent, gain : In
        The sample's exponent, at least the gain.
    down, echo : In(1)
    lowered : Out
        If ``down``: value * 2^(gain - exponent), an activation for the gradient.
    nudge : Out
        If ``echo`` and not ``down``: value * 2^(exponent - delta_shift), clipped.
    own : Out
        If neither: value * 2^(gain - readout_shift), clipped to a bit less, so that its negative is a word too.
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        word = signed(hw.width)
        super().__init__({
            "value": In(word), "held": Out(word), "exponent": In(EXPONENT_BITS), "gain": In(EXPONENT_BITS),
            "down": In(1), "echo": In(1),
            "lowered": Out(word), "nudge": Out(word), "own": Out(signed(hw.width - 1)),
        })

    def elaborate(self, platform):
        m = Module()
        w = self.hw.width
        amount, shifted = Signal(EXPONENT_BITS), Signal(signed(w + SHIFT_LIMIT), reset_less=True)
        value = delay(m, self.value, 1, "value")
        m.d.sync += [
            # A shift right by s is one left by limit - s before dropping limit bits; the limit is all ones.
            amount.eq(Mux(self.down, self.gain + ~self.exponent, Mux(self.echo, self.exponent, self.gain))),
            shifted.eq(value << amount),
        ]
        m.d.comb += [
            self.held.eq(delay(m, value, SCALE - 1, "held")),
            self.lowered.eq(arith.rnd(shifted, SHIFT_LIMIT)),
            self.nudge.eq(_clipped(shifted, self.hw.delta_shift, w)),
            self.own.eq(_clipped(shifted, self.hw.readout_shift, w - 1)),
        ]
        return m


def _clipped(x, drop: int, width: int):
    """``sat(rnd(x, drop), width)``, clipped first: the adder that rounds has to be no longer than the word."""
    if drop <= 0:
        return arith.sat(x << -drop, width)
    return arith.sat(arith.rnd(arith.sat(x >> drop - 1, width + 1), 1), width)
