"""Nudge exponents from the leading bits of the costs' derivatives."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.rtl.pipeline import delay
from echolith.rtl.scale import EXPONENT_BITS
from echolith.sim import arith
from echolith.sim.model import SHIFT_LIMIT

__all__ = ["Leading"]


class Leading(wiring.Component):
    """OR of the magnitudes of each sample's words since ``clear``; its leading bit sets the sample's exponent.

    Members
    -------
    clear : In(1)
    valid, sample, word : In
    range, gain : In
        Response exponent R; the least exponent.
    magnitude : Out
        Of the word ``early`` cycles before, 0 if none.
    exponent_a, exponent_b : Out
        R - leading bit, clamped; follow within `timing.LEADING` cycles.
    """

    def __init__(self, *, width: int, early: int):
        self.width, self.early = width, early
        super().__init__({
            "clear": In(1), "valid": In(1), "sample": In(1), "word": In(signed(width)), "range": In(8),
            "gain": In(EXPONENT_BITS), "magnitude": Out(width), "exponent_a": Out(EXPONENT_BITS),
            "exponent_b": Out(EXPONENT_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        valid, of, word = (delay(m, x, self.early, "word") for x in (self.valid, self.sample, self.word))
        with m.If(valid):
            m.d.comb += self.magnitude.eq(arith.abs_bits(word))
        seen = [Signal(self.width, name=f"seen_{s}") for s in "ab"]
        for sample, bits in enumerate(seen):
            with m.If(self.clear):
                m.d.sync += bits.eq(0)
            with m.Elif(of == sample):
                m.d.sync += bits.eq(bits | self.magnitude)
        # One encoder for both samples, in turn.
        turn, bits, position = Signal(), Signal(self.width), Signal(range(self.width))
        left = Signal(signed(len(self.range) + 1))
        m.d.sync += [turn.eq(~turn), bits.eq(Mux(turn, seen[1], seen[0])), left.eq(self.range - position)]
        if self.early:
            backward = bits[::-1]
            highest = delay(m, (backward & -backward)[:self.width][::-1], self.early, "highest")
            m.d.sync += position.eq(Cat(Cat(highest[i] for i in range(self.width) if i >> place & 1).any()
                                        for place in range(len(position))))
        else:
            m.d.sync += position.eq(0)
            for index in range(self.width):
                with m.If(bits[index]):
                    m.d.sync += position.eq(index)
        # At most the limit, then at least the gain.
        few = Signal(signed(EXPONENT_BITS + 1))
        m.d.comb += few.eq(Mux(left > SHIFT_LIMIT, SHIFT_LIMIT, Mux(left < 0, 0, left)))
        exponent = arith.exponent(delay(m, few, self.early, "few"), 0, self.gain, SHIFT_LIMIT)
        with m.If(delay(m, turn, 3 + 2 * self.early, "turn")):
            m.d.sync += self.exponent_b.eq(exponent)
        with m.Else():
            m.d.sync += self.exponent_a.eq(exponent)
        return m
