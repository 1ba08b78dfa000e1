"""The sweep engine: two nested counters that walk a block of the lanes' memory, one address per cycle."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Sweep"]


class Sweep(wiring.Component):
    """``outer`` rounds of ``period`` cycles; in each round the first ``active`` cycles are ``valid``.

    Members
    -------
    start : In(1)
        Strobe. The other inputs must be held from then until ``done``.
    outer, period, active : In
        Counts, at least one.
    alternate : In(1)
        Only even cycles are valid (an element takes two).
    base, inner_step, outer_step : In
        Address of the first element and its growth per valid cycle and per round.
    hold : In(1)
        Freeze the counters (waiting for input).
    tail : In
        Cycles between the last round and ``done``.
    valid, first, last, inner_index, outer_index, address : Out
        The element of this cycle; ``first`` and ``last`` of its round.
    done : Out(1)
        Strobe in the last cycle: outer * period + tail cycles after ``start``.
    """

    def __init__(self, *, count_bits: int, address_bits: int):
        self.count_bits, self.address_bits = count_bits, address_bits
        super().__init__({
            "start": In(1), "outer": In(count_bits), "period": In(count_bits), "active": In(count_bits),
            "alternate": In(1), "base": In(address_bits), "inner_step": In(address_bits),
            "outer_step": In(address_bits), "hold": In(1), "tail": In(8),
            "valid": Out(1), "first": Out(1), "last": Out(1), "inner_index": Out(count_bits),
            "outer_index": Out(count_bits), "address": Out(address_bits), "done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        running, left, row = Signal(), Signal(8), Signal(self.address_bits)
        round_end, sweep_end = Signal(), Signal()
        m.d.comb += [
            round_end.eq(self.inner_index == self.period - 1),
            sweep_end.eq(round_end & (self.outer_index == self.outer - 1)),
            self.valid.eq(running & ~self.hold & (self.inner_index < self.active)
                          & ~(self.alternate & self.inner_index[0])),
            self.first.eq(self.inner_index == 0),
            self.last.eq(self.inner_index == self.active - 1),
            self.done.eq((left == 1)),
        ]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(running & ~self.hold):
            m.d.sync += self.inner_index.eq(Mux(round_end, 0, self.inner_index + 1))
            with m.If(self.valid):
                m.d.sync += self.address.eq(self.address + self.inner_step)
            with m.If(round_end):
                m.d.sync += [
                    self.outer_index.eq(self.outer_index + 1),
                    row.eq(row + self.outer_step),
                    self.address.eq(row + self.outer_step),
                ]
            with m.If(sweep_end):
                m.d.sync += [running.eq(0), left.eq(self.tail)]
        with m.If(self.start):
            m.d.sync += [
                running.eq(1), self.inner_index.eq(0), self.outer_index.eq(0), row.eq(self.base),
                self.address.eq(self.base),
            ]
        return m
