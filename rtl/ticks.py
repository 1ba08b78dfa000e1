"""Counters of cycles, elements and words."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Countdown", "Ticks", "Words"]


class Countdown:
    """Counts ``total`` cycles: ``last`` is a register that is set in the last of them, so that nothing waits for a
    comparison; what comes `next` follows from registers too."""

    def __init__(self, name: str, total):
        self._total = total
        self._full, self._left = (Signal(len(total), name=f"{name}_{part}") for part in ("full", "left"))
        self._one, self._two, self._near, self.last = (
            Signal(name=f"{name}_{part}") for part in ("one", "two", "near", "last"))

    @property
    def single(self):
        """Whether the total, as it is now, is one cycle."""
        return self._total == 1

    def start(self, m: Module) -> None:
        """The next cycle is the first."""
        total = self._total
        m.d.sync += [self._full.eq(total - 1), self._left.eq(total - 1), self._one.eq(self.single),
                     self._two.eq(total == 2), self.last.eq(self.single), self._near.eq(total == 2)]

    def count(self, m: Module, again) -> None:
        """A cycle passes; ``again`` from the beginning."""
        m.d.sync += [self._left.eq(Mux(again, self._full, self._left - 1)), self.last.eq(self.next(again)),
                     self._near.eq(Mux(again, self._two, self._left == 2))]

    def next(self, again):
        """``last`` of the next cycle, if this one is counted."""
        return Mux(again, self._one, self._near)


class Ticks(wiring.Component):
    """``length`` ticks, two cycles apart, the first in the cycle after ``start``."""

    def __init__(self, bits: int):
        super().__init__({"start": In(1), "length": In(bits), "tick": Out(1)})

    def elaborate(self, platform):
        m = Module()
        left, second = Countdown("ticks", self.length), Signal()
        with m.If(self.start):
            left.start(m)
            m.d.sync += [self.tick.eq(1), second.eq(0)]
        with m.Else():
            m.d.sync += [second.eq(self.tick), self.tick.eq(second & ~left.last)]
            with m.If(second):
                left.count(m, 0)
        return m


class Words(wiring.Component):
    """``length`` words of slot a, then as many of slot b, one in every cycle in which it is ``there``.

    Members
    -------
    stop : In(1)
        End here.
    running, ended : Out(1)
        From the cycle after ``start`` on; strobe in the last cycle.
    index, second, last : Out
        The word taken next, its slot, and whether it is that slot's last.
    """

    def __init__(self, bits: int):
        super().__init__({"start": In(1), "length": In(bits), "there": In(1), "stop": In(1), "running": Out(1),
                          "ended": Out(1), "index": Out(bits), "second": Out(1), "last": Out(1)})

    def elaborate(self, platform):
        m = Module()
        words = Countdown("words", self.length)
        taken = self.running & self.there
        m.d.comb += [self.ended.eq((self.running & self.stop) | (taken & self.last & self.second)),
                     self.last.eq(words.last)]
        with m.If(self.start):
            words.start(m)
            m.d.sync += [self.running.eq(1), self.index.eq(0), self.second.eq(0)]
        with m.Elif(taken):
            words.count(m, self.last)
            m.d.sync += self.index.eq(self.index + 1)
            with m.If(self.last):
                m.d.sync += [self.index.eq(0), self.second.eq(1)]
        with m.If(self.ended):
            m.d.sync += self.running.eq(0)
        return m
