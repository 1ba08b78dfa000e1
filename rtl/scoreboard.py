"""What is still on its way, and whether the next sweep may start."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.isa import Dest, Opcode
from echolith.compiler.timing import tails
from echolith.rtl.command import Command, one_tile, region
from echolith.rtl.pipeline import delay

__all__ = ["Scoreboard"]


class Scoreboard(wiring.Component):
    """A sweep goes over its addresses first; its results follow within its tail. With `Hardware.overlap` another sweep
    may start then, if it needs none of them; else it waits for the end. `compiler.timing` has the same rules.

    Behind a FORWARD sweep the row unit works, behind TRANSPOSED and UNITS the neuron unit, one sweep at a time, and
    behind OUTER the lanes. All others, passes of general hardware to vectors or rows, and what gathers are *alone*:
    before them and behind them nothing is on its way.

    Members
    -------
    start : In
        Strobe: the sweep that waited goes over its addresses from the next cycle on.
    opcode, command, walking, ended, tail : In
        The sweep that does so, or did last; strobe in the last cycle; the cycles that its results need from there.
    passing, feeding : In
        Cycles from the start of a UNITS or FETCH `command.beside` the sweep engine until all is done.
    taken : In(1)
        Strobe: the first sums of a FORWARD sweep reach the row unit.
    next_opcode, next_command, columns, swept : In
        The sweep that waits, the columns of a context, and those that it goes over.
    ready : Out(1)
        It may start, now or, if a sweep goes over its addresses, at the end of that.
    still, quiet, idle : Out(1)
        Nothing depends on settings any more; nothing is on its way but gradients in the lanes; nothing is.
    """

    def __init__(self, hw: Hardware, *, tail_bits: int, column_bits: int):
        self.hw, self.tail_bits, self._settled = hw, tail_bits, tails(hw).settled
        super().__init__({
            "start": In(1), "opcode": In(4), "command": In(Command), "walking": In(1), "ended": In(1),
            "tail": In(tail_bits), "taken": In(1), "next_opcode": In(4), "next_command": In(Command),
            "columns": In(column_bits), "swept": In(column_bits),
            **({"passing": In(tail_bits), "feeding": In(tail_bits)} if hw.paired else {}),
            "ready": Out(1), "still": Out(1), "quiet": Out(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self._written = Signal(2)  # regions of row operands, from the launch of their sweep on
        mine = [self._alone(self.opcode, self.command), self.opcode == Opcode.FORWARD, _moves(self.opcode)]
        alone, rows, units, lanes = (Signal(self.tail_bits, name=name) for name in ("alone", "rows", "units", "lanes"))
        everything = ((alone, mine[0]), (rows, ~mine[0] & mine[1]), (units, ~mine[0] & mine[2]),
                      (lanes, ~mine[0] & (self.opcode == Opcode.OUTER)))
        if not self.hw.overlap:
            everything = ((alone, 1),)
        passes = self.start & (self.next_opcode == Opcode.UNITS)
        apart = self._alone(self.next_opcode, self.next_command)
        for left, chosen in everything:
            with m.If(self.ended & chosen):
                m.d.sync += left.eq(self.tail)
            if self.hw.paired and (left is alone or left is units):
                with m.Elif(passes & (apart if left is alone else ~apart)):
                    m.d.sync += left.eq(self.passing)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
        feed = self._feed(m)
        m.d.comb += [self.still.eq(~self.walking & (alone == 0)),
                     self.idle.eq(self.still & (rows == 0) & (units == 0) & (lanes == 0) & (feed == 0)
                                  & (self._written == 0)),
                     self.quiet.eq(self.idle), self.ready.eq(self.idle)]
        if self.hw.paired:
            m.d.comb += self.quiet.eq(~(self.walking & (self.opcode != Opcode.OUTER)) & (alone == 0) & (rows == 0)
                                      & (units == 0) & (feed == 0) & (self._written == 0))
        if self.hw.overlap:
            soon = [Mux(self.walking & chosen, self.tail, left) for left, chosen in everything]
            m.d.comb += self.ready.eq((soon[0] == 0) & self._may_start(m, *soon[1:], feed, rows, everything[1][1]))
        return m

    def _feed(self, m: Module):
        """Cycles that a FETCH beside other sweeps takes yet."""
        if not self.hw.paired:
            return 0
        feed = Signal(self.tail_bits)
        with m.If(self.start & (self.next_opcode == Opcode.FETCH) & one_tile(self.next_command)):
            m.d.sync += feed.eq(self.feeding)
        with m.Elif(feed != 0):
            m.d.sync += feed.eq(feed - 1)
        return feed

    def _may_start(self, m: Module, rows, units, lanes, feed, rows_now, forward):
        """``rows``, ``units``, ``lanes``: cycles that are left when the sweep could start."""
        c, op, after = self.next_command, self.next_opcode, region(self.hw, self.next_command)
        moving, written = Signal(2), self._written  # context in the neuron unit
        drained, draining = Signal(), Signal()  # the region that the row unit writes, if it does
        waits = Signal(2)  # FORWARD sweeps for the row unit
        launched = self.start & (op == Opcode.FORWARD) & ~self._alone(op, c)
        with m.If(self.ended & forward):
            m.d.sync += [drained.eq(region(self.hw, self.command)), draining.eq(_writes(self.command))]
        with m.If(self.ended & _moves(self.opcode)):
            m.d.sync += moving.eq(self.command.context)
        if self.hw.paired:
            with m.If(self.start & (op == Opcode.UNITS)):
                m.d.sync += moving.eq(c.context)
        # Another sweep may end in this very cycle.
        done = delay(m, Cat((rows_now == 1) & draining, drained), self._settled, "done")
        with m.If(done[0]):
            m.d.sync += written.bit_select(done[1], 1).eq(0)
        # All are counted where none is alone; else one is enough, and others' sums are taken too.
        m.d.sync += waits.eq(waits + launched - self.taken if self.hw.paired else launched | (waits[0] & ~self.taken))
        with m.If(launched):
            with m.If(_writes(c)):
                m.d.sync += written.bit_select(after, 1).eq(1)
        # Positions are read in the order in which they are moved: a sweep may follow closely. A read-out may have one
        # column more than there are units.
        biased = (op == Opcode.OUTER) | (c.dest == Dest.COST)
        close = 0 if self.hw.general else units + biased < self.columns
        mover = Mux(self.walking & _moves(self.opcode), self.command.context, moving)
        there = c.source | (units == 0) | (c.context != mover) | close
        operands = ~written.bit_select(after, 1)
        ready = Signal()
        with m.Switch(op):
            with m.Case(Opcode.FORWARD):
                m.d.comb += ready.eq(there & (waits < 1 + self.hw.paired) & (rows <= self.swept)
                                     & Mux(_writes(c), operands & ((c.dest != Dest.COST) | (feed == 0)), feed == 0))
            with m.Case(Opcode.OUTER):
                m.d.comb += ready.eq(there & operands & (lanes == 0))
            with m.Case(Opcode.TRANSPOSED):
                m.d.comb += ready.eq(operands & (units == 0))
            with m.Case(Opcode.UNITS):
                m.d.comb += ready.eq(units == 0)
            with m.Case(Opcode.FETCH):
                m.d.comb += ready.eq(feed == 0)
        return Mux(self._alone(op, c), self.idle, ready)

    def _alone(self, opcode, command):
        fetch, ends = opcode == Opcode.FETCH, command.emit | command.check
        if self.hw.paired:
            fetch &= ~one_tile(command)
        else:
            ends |= command.clear
        found = fetch | (opcode == Opcode.UPDATE) | ((opcode == Opcode.UNITS) & ends)
        if self.hw.general:
            found |= (opcode == Opcode.FORWARD) & (command.dest == Dest.VALUE)
            found |= _moves(opcode) & (command.value | command.rows)
        if self.hw.depths.index:  # one memory says where both the array and the neuron unit read
            found |= command.gather | (_moves(opcode) & command.gather_second)
        return found


def _moves(opcode):
    return (opcode == Opcode.TRANSPOSED) | (opcode == Opcode.UNITS)


def _writes(forward):
    """Whether a FORWARD sweep's results become row operands."""
    return forward.dest != Dest.DRIVE

