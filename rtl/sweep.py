"""The sweep engine: two nested counters that walk a block of the lanes' memory, one address per cycle."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.rtl.ticks import Countdown

__all__ = ["Sweep"]


class Sweep(wiring.Component):
    """``outer`` rounds of ``period`` cycles; in each round the first ``active`` cycles are ``valid``.

    Members
    -------
    start : In(1)
        Strobe, also in the cycle of ``ended``. The counts, ``base`` and ``short`` are taken with it; the other inputs
        must be held until ``ended``.
    outer, period, active : In
        Counts, at least one.
    short : In(1)
        The last round ends with its last valid cycle.
    alternate : In(1)
        Only even cycles are valid (an element takes two).
    base, inner_step, outer_step : In
        Address of the first element and its growth per valid cycle and per round.
    stop : In(1)
        End here.
    valid, first, last, inner_index, outer_index, address : Out
        The element of this cycle; ``first`` and ``last`` of its round.
    closes : Out(1)
        The last cycle of a round.
    running, ended, closing : Out(1)
        From the cycle after ``start`` on, outer * period cycles; strobe in the last of them; from a cycle before it on.

    With ``held``, the counts stand until ``ended``. With ``repeat_bits``, the whole walk is done over and over:

    repeat : In
        Times more than once.
    again : Out(1)
        Strobe in the last cycle of every walk but the last.
    next_index : Out
        ``inner_index`` of the next cycle.
    """

    def __init__(self, *, inner_bits: int, outer_bits: int, address_bits: int, repeat_bits: int = 0,
                 held: bool = False):
        self.inner_bits, self.outer_bits, self._held = inner_bits, outer_bits, held
        self.address_bits, self.repeat_bits = address_bits, repeat_bits
        repeats = {"repeat": In(repeat_bits), "again": Out(1), "next_index": Out(inner_bits)} if repeat_bits else {}
        super().__init__({
            "start": In(1), "outer": In(outer_bits), "period": In(inner_bits), "active": In(inner_bits),
            "short": In(1), "alternate": In(1), "base": In(address_bits), "inner_step": In(address_bits),
            "outer_step": In(address_bits), "stop": In(1),
            "valid": Out(1), "first": Out(1), "last": Out(1), "inner_index": Out(inner_bits),
            "closes": Out(1),
            "outer_index": Out(outer_bits), "address": Out(address_bits), "running": Out(1), "ended": Out(1),
            "closing": Out(1), **repeats,
        })

    def elaborate(self, platform):
        m = Module()
        live, row = Signal(), Signal(self.address_bits)
        final, short, following, next_row = Signal(), Signal(), Signal(), Signal(self.address_bits)
        period, active, rounds = (Countdown(name, total, self._held) for name, total in (
            ("period", self.period), ("active", self.active), ("rounds", self.outer)))
        last_walk, last_next = self._last(m)
        rounds_next = Mux(period.last, rounds.next(rounds.last), rounds.last)
        m.d.comb += [
            following.eq(rounds_next & last_next & (period.next(period.last) | (short & active.next(period.last)))),
            next_row.eq(row + self.outer_step),
            self.valid.eq(live & ~(self.alternate & self.inner_index[0])), self.last.eq(active.last),
            self.ended.eq(self.running & (self.stop | final)),
            self.closing.eq(self.ended | (self.running & following)),
            self.closes.eq(period.last),
        ]
        with m.If(self.running):
            m.d.sync += [final.eq(following), self.inner_index.eq(self.inner_index + 1), self.first.eq(period.last),
                         live.eq(live & ~self.last)]
            period.count(m, period.last)
            active.count(m, period.last)
            with m.If(period.last):
                rounds.count(m, rounds.last)
                m.d.sync += [self.inner_index.eq(0), self.outer_index.eq(self.outer_index + 1), live.eq(~final)]
        with m.If(self.valid):
            m.d.sync += self.address.eq(self.address + self.inner_step)
        with m.If(self.running & period.last):
            m.d.sync += [row.eq(next_row), self.address.eq(next_row)]
        if self.repeat_bits:
            m.d.comb += [self.again.eq(self.running & period.last & rounds.last & ~last_walk),
                         self.next_index.eq(Mux(period.last, 0, self.inner_index + 1))]
            with m.If(self.again):
                m.d.sync += [self.outer_index.eq(0), row.eq(self.base), self.address.eq(self.base)]
        with m.If(self.ended):
            m.d.sync += [self.running.eq(0), live.eq(0)]
        with m.If(self.start):  # perhaps in the last cycle of another sweep
            for count in (period, active, rounds):
                count.start(m)
            m.d.sync += [short.eq(self.short), final.eq(
                rounds.single & self._once & (period.single | (self.short & active.single)))]
            m.d.sync += [self.running.eq(1), live.eq(1), self.first.eq(1), self.inner_index.eq(0),
                         self.outer_index.eq(0), row.eq(self.base), self.address.eq(self.base)]
        return m

    @property
    def _once(self):
        """Whether there is one walk."""
        return self.repeat == 0 if self.repeat_bits else 1

    def _last(self, m: Module):
        """Whether no walk follows this one, or that of the next cycle."""
        if not self.repeat_bits:
            return 1, 1
        walk = Signal(self.repeat_bits)
        with m.If(self.start):
            m.d.sync += walk.eq(0)
        with m.Elif(self.again):
            m.d.sync += walk.eq(walk + 1)
        last = walk == self.repeat
        return last, last | (self.again & (walk + 1 == self.repeat))
