"""One barrel shifter for the words that exponents and gain scale."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.timing import scaled
from echolith.rtl.pipeline import delay
from echolith.sim import arith
from echolith.sim.model import SHIFT_LIMIT

__all__ = ["EXPONENT_BITS", "Scale", "shift_amount"]

EXPONENT_BITS = SHIFT_LIMIT.bit_length()


def shift_amount(down, echo, exponent, gain):
    """How far `Scale` shifts a word of a sample: ``exponent`` is the sample's, at least the gain."""
    # A shift right by s is one left by limit - s before dropping limit bits; the limit is all ones.
    return Mux(down, gain + ~exponent, Mux(echo, exponent, gain))[:EXPONENT_BITS]


class Scale(wiring.Component):
    """Members
    -------
    value, held : In, Out
        ``held`` is the value `timing.scaled` cycles later, a cycle before its result.
    amount : In
        `shift_amount`.
    down, echo : In(1)
        Of the value; held while values are inside, but for `Hardware.paired`.
    result : Out
        If ``down``, an activation for the gradient: value * 2^(gain - exponent). Else if ``echo``, a nudge: value *
        2^(exponent - delta_shift), clipped. Else the readout's own error: value * 2^(gain - readout_shift), clipped to
        a bit less, so that its negative is a word too. Rounded half up; with `Hardware.stacked` half to even, because
        gradients of what lies between layers are sums, in which all that half up adds stays.
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        word = signed(hw.width)
        super().__init__({
            "value": In(word), "held": Out(word), "amount": In(EXPONENT_BITS),
            "down": In(1), "echo": In(1), "result": Out(word),
        })

    def elaborate(self, platform):
        m = Module()
        w, deep = self.hw.width, self.hw.overlap
        amount, shifted = Signal(EXPONENT_BITS), Signal(signed(w + SHIFT_LIMIT), reset_less=True)
        value = delay(m, self.value, 1, "value")
        if deep:  # by one to three places, then by fours
            little = delay(m, self.value << self.amount[:2], 1, "little")
            m.d.sync += [amount[2:].eq(self.amount[2:]), shifted.eq(little << amount)]
        else:
            m.d.sync += [amount.eq(self.amount), shifted.eq(value << amount)]
        # With one bit more, which rounds; clipped first, so that the adder is no longer than the word.
        whole, rounded = Signal(signed(w + 1)), Signal(signed(w))
        nudge, error = (_dropped(shifted, drop) for drop in (self.hw.delta_shift, self.hw.readout_shift))
        of = Cat(self.down, self.echo)
        down, echo = delay(m, of, 2, "of") if self.hw.paired else of
        wide = down | echo
        if deep:
            picked = Mux(down, shifted >> SHIFT_LIMIT - 1, Mux(echo, nudge, error))
            out = Cat(~down & echo & arith.outside(nudge, w + 1), ~down & ~echo & arith.outside(error, w))
            word, outside, negative = (delay(m, x, 1, name) for x, name in (
                (picked[:w + 1].as_signed(), "picked"), (out, "outside"), (shifted[-1], "negative")))
            wide = delay(m, wide, 1, "wide") if self.hw.paired else wide
            limit = Cat((~negative).replicate(w - 1), negative ^ wide, negative).as_signed()
            inside = delay(m, Mux(outside.any(), limit, word), 1, "inside")
            lost = delay(m, self._lost(shifted, down, echo), 2, "lost") if self.hw.stacked else 0
            wide = delay(m, wide, 1, "wide_inside") if self.hw.paired else wide
        else:
            inside = delay(m, Mux(down, shifted >> SHIFT_LIMIT - 1,
                                  Mux(echo, arith.sat(nudge, w + 1), arith.sat(error, w))), 1, "inside")
            lost = delay(m, self._lost(shifted, down, echo), 1, "lost") if self.hw.stacked else 0
        m.d.comb += whole.eq(arith.even(Cat(lost, inside).as_signed(), 2) if self.hw.stacked else arith.rnd(inside, 1))
        m.d.comb += [
            rounded.eq(Mux(wide, arith.sat(whole, w), arith.sat(whole, w - 1))),
            self.result.eq(delay(m, rounded, int(deep), "rounded")),
            self.held.eq(delay(m, value, scaled(self.hw) - 1, "held")),
        ]
        return m

    def _lost(self, shifted, down, echo):
        """Whether a result has lost more than the bit that rounds it."""
        drops = SHIFT_LIMIT, self.hw.delta_shift, self.hw.readout_shift
        own, nudge, error = (shifted[:max(drop - 1, 0)].any() for drop in drops)
        return Mux(down, own, Mux(echo, nudge, error))


def _dropped(x, drop: int):
    """``x >> drop`` with one bit below it."""
    return x << 1 - drop if drop < 1 else x >> drop - 1
