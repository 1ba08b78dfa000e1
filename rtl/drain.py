"""Where sums leave the lanes group by group."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.timing import GROUP
from echolith.rtl.pipeline import delay, one_of

__all__ = ["Drain"]


class Drain(wiring.Component):
    """Groups of lanes have their sums one after the other, and later than their turn comes: so each has drain registers
    that shift by themselves, and in its turn gives its first lane's. Those of all groups but the first go through a
    register, a cycle earlier.

    Members
    -------
    begin, both : In
        Two cycles before the first group's drain registers are loaded; whether slots leave together, a row a cycle,
        and not a row in two.
    group_a, group_b : In
        First lanes' drain registers, one beside the other.
    shift : Out
        By group: the next lane's sums take their place.
    a, b : Out
        The row whose turn it is.
    """

    def __init__(self, hw: Hardware):
        self.groups = -(-hw.lanes // GROUP)
        self.bits = hw.accumulator - hw.dropped
        words, word = self.groups * self.bits, signed(self.bits)
        super().__init__({"begin": In(1), "both": In(1), "group_a": In(words), "group_b": In(words),
                          "shift": Out(self.groups), "a": Out(word), "b": Out(word)})

    def elaborate(self, platform):
        m = Module()
        turn, row, second, both = Signal(self.groups), Signal(range(GROUP)), Signal(), Signal()
        ends = second | both  # of a row
        with m.If(self.begin):
            m.d.sync += [turn.eq(1), row.eq(0), second.eq(0), both.eq(self.both)]
        with m.Else():
            m.d.sync += [second.eq(~ends), row.eq(row + ends)]
            with m.If(ends & (row == GROUP - 1)):
                m.d.sync += turn.eq(turn << 1)
        now, shift = delay(m, turn, 1, "turn"), delay(m, turn & ends.replicate(self.groups), 1, "shift")
        first = delay(m, now[0], 1, "first")
        m.d.comb += self.shift.eq(Cat(delay(m, shift[0], 1, "shift_first"), shift[1:]))
        for words, out in ((self.group_a, self.a), (self.group_b, self.b)):
            word = [words.word_select(group, self.bits) for group in range(self.groups)]
            later = delay(m, one_of([(now[group], word[group]) for group in range(1, self.groups)]), 1, "later")
            m.d.comb += out.eq(Mux(first, word[0], later).as_signed())
        return m
