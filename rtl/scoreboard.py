"""What is still on its way, and whether the next sweep may start."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.isa import Dest, Opcode
from echolith.compiler.timing import follows, skew, tails
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
    starts, walks : In
        Strobe: the sweep that waited starts, by opcode; it goes over its addresses from the next cycle on, is not
        `command.beside` the sweep engine.
    opcode, command, walking, ended, tail : In
        The sweep that does so, or did last; strobe in the last cycle; the cycles that its results need from there.
    fills : In(1)
        Tiles of the FORWARD sweep that goes over its addresses, or did last, are `timing.filling`.
    passing : In
        Cycles from the start of a UNITS `command.beside` the sweep engine until all is done.
    fed : In
        Strobe: a FETCH has its last word.
    taken : In(1)
        Strobe: the first sums of a FORWARD sweep reach the row unit.
    kinds, next_command, columns, extra : In
        The sweep that waits, for two cycles at least, one bit for each opcode; the columns of a context, and those
        that a FORWARD sweep goes over instead if it takes the inputs.
    ready : Out(1)
        It may start, now or, if a sweep goes over its addresses, at the end of that.
    still, quiet, idle : Out(1)
        Nothing depends on settings any more; nothing is on its way but gradients in the lanes; nothing is. A cycle
        later, so that they hold from the second cycle after a start.
    """

    def __init__(self, hw: Hardware, *, tail_bits: int, column_bits: int):
        self.hw, self.tail_bits = hw, tail_bits
        super().__init__({
            "starts": In(16), "walks": In(1), "opcode": In(4), "command": In(Command), "walking": In(1),
            "ended": In(1), "fed": In(1), "tail": In(tail_bits), "fills": In(1), "taken": In(1),
            "kinds": In(16), "next_command": In(Command), "columns": In(column_bits),
            **({"extra": In(column_bits), "passing": In(tail_bits)} if hw.paired else {}),
            "ready": Out(1), "still": Out(1), "quiet": Out(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self._written = Signal(2)  # regions of row operands, from the launch of their sweep on
        alone, rows, units, lanes = (_Left(name, self.tail_bits) for name in ("alone", "rows", "units", "lanes"))
        everything = ((alone, 1),)
        if self.hw.overlap:
            waiting, going = self._kinds(m)
            everything = tuple(zip((alone, rows, units, lanes), going, strict=True))
        fed = delay(m, self.fed, 1, "fed"), Const(tails(self.hw, self.hw.lanes).fetch - 1)
        feed, single = self._feed(m, fed)
        for left, chosen in everything:
            begins = ((self.ended & chosen, self.tail),)
            if left is alone and not self.hw.paired:
                begins += (fed,)
            if self.hw.paired and (left is alone or left is units):
                begins += ((self.starts[Opcode.UNITS] & (waiting[0] if left is alone else ~waiting[0]), self.passing),)
            left.count(m, *begins)
        still, idle, quiet = (Signal(name=f"{name}_now") for name in ("still", "idle", "quiet"))
        nothing = Signal()  # that is alone
        m.d.comb += [nothing.eq(alone.over & (feed | ~single)), still.eq(~self.walking & nothing),
                     idle.eq(still & rows.over & units.over & lanes.over & feed & (self._written == 0)),
                     quiet.eq(idle), self.ready.eq(self.idle)]
        m.d.sync += [self.still.eq(still), self.idle.eq(idle), self.quiet.eq(quiet)]
        if self.hw.paired:
            m.d.comb += quiet.eq(~(self.walking & ~going[3]) & alone.over & rows.over & units.over & feed
                                 & (self._written == 0))
        if self.hw.overlap:
            there = {left: self.walking & chosen for left, chosen in everything}
            soon = [left.soon(m, there[left]) for left in (alone, units, lanes)]
            fits = self._fits(m, rows, there[rows])
            # Positions are read in the order in which they are moved: a sweep may follow closely. A read-out may have
            # one column more than there are units.
            biased = self.kinds[Opcode.OUTER] | (self.next_command.dest == Dest.COST)
            close = 0
            if not self.hw.general:
                closes = [units.below(m, there[units], self.tail, delay(m, self.columns - less, 1, "limit"), f"_{less}")
                          for less in range(2)]
                close = Mux(delay(m, biased, 1, "biased"), closes[1], closes[0])
            swept = soon[1]
            if self.hw.paired:  # its first sums come later
                few = delay(m, self.columns <= follows(self.hw) + 1, 1, "few")
                swept = units.below(m, there[units], self.tail, Mux(few, 1, follows(self.hw) + 1), "_swept")
            may = self._may_start(m, fits, *soon[1:], swept, close, feed, rows, waiting, going)
            m.d.comb += self.ready.eq(Mux(waiting[0], self.idle, soon[0] & (feed | ~single) & may))
        return m

    def _fits(self, m: Module, rows, there):
        """The row unit takes the sums of the FORWARD sweep that waits as soon as they come. All counts that it may have
        are compared: which it is shows later."""
        def below(columns, name):
            return rows.below(m, there, self.tail, delay(m, columns + 1, 1, "room"), name)

        c = self.next_command
        fits = below(self.columns, "")
        if self.hw.paired:
            fits = Mux(delay(m, c.source, 1, "sourced"), below(self.extra, "_extra"), fits)
        if self.hw.depths.deltas:
            fits = Mux(delay(m, c.nudge, 1, "nudged"), below(Const(1), "_one"), fits)
        return fits

    def _kinds(self, m: Module):
        """Whether a sweep is alone, or else FORWARD, one that moves units, OUTER: the one that waits, and the one that
        goes over its addresses."""
        kinds = self.kinds
        alone = self._alone(kinds, self.next_command)
        waiting, going = Signal(4, name="waiting"), Signal(4, name="going")
        m.d.sync += waiting.eq(Cat(alone, Cat(kinds[Opcode.FORWARD], _moves(kinds), kinds[Opcode.OUTER])
                                   & (~alone).replicate(3)))
        with m.If(self.walks):
            m.d.sync += going.eq(waiting)
        return waiting, going

    def _feed(self, m: Module, fed: tuple):
        """Whether the last FETCH is over, but for what `Hardware` that is not paired counts as alone; whether it is
        alone."""
        feeding = Signal()
        with m.If(self.starts[Opcode.FETCH]):
            m.d.sync += feeding.eq(1)
        with m.Elif(fed[0]):
            m.d.sync += feeding.eq(0)
        if not self.hw.paired:
            return ~feeding, Const(1)
        feed, single = _Left("feed", self.tail_bits), Signal()
        feed.count(m, fed)
        with m.If(self.starts[Opcode.FETCH]):
            m.d.sync += single.eq(~one_tile(self.next_command))
        return feed.over & ~feeding, single

    def _may_start(self, m: Module, fits, units, lanes, swept, close, feed, rows, waiting, going):
        """``fits``: the row unit is done soon enough when the sweep could start; ``units``, ``lanes``, ``feed``: they
        are over; ``swept``, ``close``: the neuron unit is early enough for sums, for positions."""
        c, kinds, after = self.next_command, self.kinds, region(self.hw, self.next_command)
        moving, written = Signal(2), self._written  # context in the neuron unit
        drained, draining, fills = Signal(), Signal(), Signal()  # the region that the row unit writes, if it does
        waits = Signal(2)  # FORWARD sweeps for the row unit
        launched = self.starts[Opcode.FORWARD] & waiting[1]
        with m.If(self.ended & going[1]):
            m.d.sync += [drained.eq(region(self.hw, self.command)), draining.eq(_writes(self.command)),
                         fills.eq(self.fills)]
        with m.If(self.ended & going[2]):
            m.d.sync += moving.eq(self.command.context)
        if self.hw.paired:
            with m.If(self.starts[Opcode.UNITS] & waiting[2]):
                m.d.sync += moving.eq(c.context)
        # Another sweep may end in this very cycle.
        leaves = (rows.left == 1) & ~rows.over & draining
        for last in {False, skew(self.hw) > 0}:
            leaving = Cat(leaves & (fills == last), drained)
            done = delay(m, leaving, tails(self.hw, self.hw.lanes if last else 1).settled, "done")
            with m.If(done[0]):
                m.d.sync += written.bit_select(done[1], 1).eq(0)
        # All are counted where none is alone; else one is enough, and others' sums are taken too.
        m.d.sync += waits.eq(waits + launched - self.taken if self.hw.paired else launched | (waits[0] & ~self.taken))
        with m.If(launched):
            with m.If(_writes(c)):
                m.d.sync += written.bit_select(after, 1).eq(1)
        mover = Mux(self.walking & going[2], self.command.context, moving)
        # What the word asks is known a cycle later.
        forward, outer = kinds[Opcode.FORWARD], kinds[Opcode.OUTER]
        moved, into, fed, reads, outer, forward, passes, sums = delay(m, Cat(
            c.source | (c.context != mover) | ~(forward | outer), after,
            ~((forward & (~_writes(c) | (c.dest == Dest.COST))) | kinds[Opcode.FETCH]),
            (forward & _writes(c)) | outer | kinds[Opcode.TRANSPOSED], outer, forward, kinds[Opcode.UNITS],
            kinds[Opcode.TRANSPOSED]), 1, "asks")
        there, operands = moved | units | close, ~written.bit_select(into, 1) | ~reads
        return (there & operands & (fed | feed) & (~passes | units) & (~sums | swept) & (~outer | lanes)
                & (~forward | ((waits < 1 + self.hw.paired) & fits)))

    def _alone(self, kinds, command):
        fetch, ends = kinds[Opcode.FETCH], command.emit | command.check
        if self.hw.paired:
            fetch &= ~one_tile(command)
        else:
            ends |= command.clear
        found = fetch | kinds[Opcode.UPDATE] | (kinds[Opcode.UNITS] & ends)
        if self.hw.general:
            found |= kinds[Opcode.FORWARD] & (command.dest == Dest.VALUE)
            found |= _moves(kinds) & (command.value | command.rows)
        if self.hw.depths.index:  # one memory says where both the array and the neuron unit read
            found |= command.gather | (_moves(kinds) & command.gather_second)
        return found


class _Left:
    """Cycles that are ``left`` unless it is ``over``, and registers for what is asked of them, so that nothing waits
    for a comparison. What may come yet counts by its tail; a question has its answer two cycles after the word that
    asks."""

    def __init__(self, name: str, bits: int):
        self.name, self.left, self.over = name, Signal(bits, name=name), Signal(name=f"{name}_over", init=1)

    def count(self, m: Module, *begins) -> None:
        """Down from the amount of the ``begins``, pairs of strobe and amount, that comes."""
        m.d.sync += [self.left.eq(self.left - 1), self.over.eq(self.over | (self.left[1:] == 0))]
        for strobe, amount in reversed(begins):
            with m.If(strobe):
                m.d.sync += [self.left.eq(amount), self.over.eq(0)]

    def soon(self, m: Module, coming):
        """Nothing is left in this cycle, and nothing is ``coming``."""
        soon = Signal(name=f"{self.name}_soon")
        m.d.sync += soon.eq(~coming & (self.over | (self.left[1:] == 0)))
        return soon

    def below(self, m: Module, coming, tail, limit, name: str = ""):
        """Fewer than ``limit`` cycles are left, or will be of what is ``coming``."""
        below = Signal(name=f"{self.name}_below{name}")
        m.d.sync += below.eq(Mux(coming, tail < limit, self.over | (self.left <= limit)))
        return below


def _moves(kinds):
    return kinds[Opcode.TRANSPOSED] | kinds[Opcode.UNITS]


def _writes(forward):
    """Whether a FORWARD sweep's results become row operands."""
    return forward.dest != Dest.DRIVE

