"""Counters of cycles, elements and words."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Countdown", "Ticks", "Words"]


class Countdown:
    """Counts ``total`` cycles: ``last`` is a register that is set in the last of them, so that nothing waits for a
    comparison; what comes `next` follows from registers too. The total is kept from the start on, unless it is
    ``held``."""

    def __init__(self, name: str, total, held: bool = False):
        self._total, self._name, self._held = total, name, held
        self._left, self._near, self.last = (
            Signal(bits, name=f"{name}_{part}") for part, bits in (("left", len(total)), ("near", 1), ("last", 1)))
        self._again = total - 1, self.single, total == 2
        if not held:
            self._again = tuple(Signal(bits, name=f"{name}_{part}")
                                for part, bits in (("full", len(total)), ("one", 1), ("two", 1)))

    @property
    def single(self):
        """Whether the total, as it is now, is one cycle."""
        return self._total == 1

    def start(self, m: Module) -> None:
        """The next cycle is the first."""
        first = self._total - 1, self.single, self._total == 2
        if not self._held:
            m.d.sync += [kept.eq(value) for kept, value in zip(self._again, first, strict=True)]
        m.d.sync += [x.eq(value) for x, value in zip((self._left, self.last, self._near), first, strict=True)]

    def count(self, m: Module, again) -> None:
        """A cycle passes; ``again`` from the beginning."""
        full, _, two = self._again
        m.d.sync += [self._left.eq(Mux(again, full, self._left - 1)), self.last.eq(self.next(again)),
                     self._near.eq(Mux(again, two, self._left == 2))]

    def next(self, again):
        """``last`` of the next cycle, if this one is counted."""
        return Mux(again, self._again[1], self._near)


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
        taken, before, single = self.running & self.there, Signal.like(self.length), Signal()
        m.d.comb += self.ended.eq((self.running & self.stop) | (taken & self.last & self.second))
        with m.If(self.start):
            m.d.sync += [self.running.eq(1), self.index.eq(0), self.second.eq(0), before.eq(self.length - 2),
                         single.eq(self.length == 1), self.last.eq(self.length == 1)]
        with m.Elif(taken):
            m.d.sync += [self.index.eq(Mux(self.last, 0, self.index + 1)),
                         self.last.eq(Mux(self.last, single, self.index == before)),
                         self.second.eq(self.second | self.last)]
        with m.If(self.ended):
            m.d.sync += self.running.eq(0)
        return m
