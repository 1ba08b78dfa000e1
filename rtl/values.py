"""Results on their way to the vectors in the state memory."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.isa import Context
from echolith.rtl.command import slot_sample

__all__ = ["ValueWriter"]


class ValueWriter(wiring.Component):
    """Results come in order, slot a before slot b, from one of two sources; only counting tells them apart.

    Members
    -------
    start : In(1)
        A command begins: its first result goes to element ``first``.
    context, first : In
    maximum : In
        All results go to ``first``, and what stays is the largest.
    contrast : In
        What slot a's results are more than slot b's goes to the context of the pair, to the slot of this context's
        sample.
    summed_valid, summed, mapped_valid, mapped : In
        Of a forward sweep and of a pass; data are zero unless valid.
    w_en, w_addr, w_data : Out
        One enable per slot; data are zero unless valid.
    """

    def __init__(self, *, width: int, bits: int):
        self.width, self.bits, word = width, bits, signed(width)
        super().__init__({
            "start": In(1), "context": In(2), "first": In(bits), "maximum": In(1), "contrast": In(1),
            "summed_valid": In(1), "summed": In(word), "mapped_valid": In(1), "mapped": In(word), "w_en": Out(2),
            "w_addr": Out(bits + 2), "w_data": Out(width),
        })

    def elaborate(self, platform):
        m = Module()
        place, valid = Signal(1 + self.bits), Signal()  # slot, element
        word, sample = Signal(signed(self.width)), Signal()
        written, before, seen = Signal.like(word), Signal.like(word), Signal(2)  # the other slot's last, this slot's
        larger = self.maximum & seen[1] & valid & (before > word)
        with m.If(self.start):
            m.d.sync += [place.eq(Cat(0, self.first)), seen.eq(0)]
        with m.Elif(valid):
            m.d.sync += [place.eq(Mux(self.maximum, place ^ 1, place + 1)), seen.eq(Cat(1, seen[0])),
                         written.eq(self.w_data), before.eq(written)]
        m.d.comb += [
            word.eq(self.summed | self.mapped), sample.eq(slot_sample(self.context, 0)),
            valid.eq(self.summed_valid | self.mapped_valid),
            self.w_en.eq(Mux(self.contrast, Cat(~sample, sample) & (valid & place[0]).replicate(2),
                             Cat(valid & ~place[0], valid & place[0]))),
            self.w_addr.eq(Cat(place[1:], Mux(self.contrast, Context.PAIR, self.context))),
            self.w_data.eq(Mux(self.contrast & place[0] & valid, written - word, Mux(larger, before, word))),
        ]
        return m
