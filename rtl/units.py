"""The neuron unit's way of units: force, kick, drift, nudge, one element per cycle, slot a before slot b."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.isa import Context
from echolith.compiler.timing import fetched, operand_stage, second_operand, trailing
from echolith.rtl.command import Command, slot_sample
from echolith.rtl.gather import Gather
from echolith.rtl.kinds import feed, kinds
from echolith.rtl.memory import make_bank
from echolith.rtl.pipeline import delay
from echolith.sim import arith

__all__ = ["UnitPath", "mass"]


def mass(hw: Hardware) -> list[bool]:
    """Which vector parameters have their gradient from the drift."""
    outputs = {name for pipeline in hw.drift for name, _ in pipeline.outputs}
    return [f"g{i}" in outputs for i in range(len(hw.vectors))]


class UnitPath(wiring.Component):
    """Reads an element's state, moves it, writes it back.

    Time is told by one bit per cycle since a unit's pulse: slot a is at a stage when the bit of that stage is set, slot
    b when the next one is. Units come in order, so every stage that needs an address counts for itself.

    Members
    -------
    command, sweeping : In
        Held; ``sweeping`` if the elements come with forces.
    y_valid, y_a, y_b : In
        A column's sums: a force (``dest`` 0) or a nudge (``dest`` 1) of the next unit; with ``spread`` too, of a unit
        that an echo starts with.
    tick : In
        The next unit without a sum. At least two cycles between ticks or sums.
    start : In
        Back to unit 0.
    q_r_*, p_r_*, k_* : state reads, valid `fetched` cycles later: both slots' positions, one slot's momentum; the
        vector parameters of ``unit``, a cycle later
    q_w_*, p_w_* : state writes; ``q_w_data`` is zero unless valid
    g0..., g_*, mass_* : contributions to the vector gradients, one element per cycle; when those of the force come, and
        when those of the drift (`mass`)
    wrapped, moved, response, emit_* : Out
        Flags, |q+ - q-| bits, and the position read (``emit`` commands).

    In general hardware:

    first, second : In
        Elements of unit 0's state and of its second operand.
    mapped_valid, mapped : Out
        Results of ``value`` and ``rows`` commands, zero unless valid.

    With an index memory, ``first`` and ``second`` may be places in it, and ``index_w_*`` writes it. Momenta
    then begin at ``moving``, if the first operand is gathered. With repeated
    sweeps, ``columns``, ``column`` and ``column_place`` look up the array's columns; see `Gather`.
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        w, acc = signed(hw.width), signed(hw.accumulator)
        self.bits = bits = (hw.depths.units - 1).bit_length()
        vectors = range(len(hw.vectors))
        self._operand, self._fetched, self._twice = operand_stage(hw), fetched(hw), second_operand(hw)
        index = (hw.depths.index - 1).bit_length() if hw.depths.index else 0
        offset = In(max(bits, index))
        general = {"first": offset, "second": offset, "mapped_valid": Out(1), "mapped": Out(w)}
        if index:
            general |= {"index_w_addr": In(index), "index_w_data": In(bits), "index_w_en": In(1), "moving": In(bits)}
            general |= {"columns": In(1), "column": In(index), "column_place": Out(bits)} if hw.repeat else {}
        super().__init__({
            "command": In(Command), "sweeping": In(1), "y_valid": In(1), "y_a": In(acc), "y_b": In(acc), "tick": In(1),
            "start": In(1),
            "q_r_addr": Out(bits + 2), "q_r_en": Out(1), "q_a": In(w), "q_b": In(w),
            "p_r_addr": Out(bits + 3), "p": In(w),
            "unit": Out(bits), "k_en": Out(1), **{f"k{i}": In(w) for i in vectors},
            "q_w_addr": Out(bits + 2), "q_w_slot": Out(1), "q_w_data": Out(w), "q_w_en": Out(1),
            "p_w_addr": Out(bits + 3), "p_w_data": Out(w), "p_w_en": Out(1),
            **{f"g{i}": Out(signed(2 * hw.width - 1)) for i in vectors},
            "g_valid": Out(1), "g_slot": Out(1), "g_sample": Out(1), "g_unit": Out(bits),
            "mass_valid": Out(1), "mass_slot": Out(1), "mass_sample": Out(1), "mass_unit": Out(bits),
            "wrapped": Out(1), "moved": Out(1), "response": Out(hw.width),
            "emit_valid": Out(1), "emit": Out(w),
            "table_w_addr": In(hw.segments), "table_w_data": In(hw.width), "table_w_half": In(1),
            "table_w_en": In(max(1, sum(len(p.tables()) for p in (*hw.step, *hw.drift)))),
            **(general if hw.general else {}),
        })

    def elaborate(self, platform):
        m = Module()
        hw, c = self.hw, self.command
        m.submodules.step = self._step = kinds(hw.step, width=hw.width, segments=hw.segments)
        m.submodules.drift = self._drift = kinds(hw.drift, width=hw.width, segments=hw.segments)
        # Stages at which the force, what kicks, p_sum and q_sum are there.
        self._forced = self._operand + self._step.latency
        self._kick = self._forced + hw.overlap
        self._kicked, self._moved = self._kick + 2, self._kick + 3 + self._drift.latency
        self._pulses = [Signal()]
        for stage in range(self._moved + 1):
            pulse = self._pulses[-1]
            if hw.general and stage == self._forced + 1:
                pulse = pulse & ~c.value & ~c.rows  # nothing moves, and the next command may come sooner
            self._pulses.append(delay(m, pulse, 1, f"pulse_{stage + 1}"))
        # Behind the force, where the one before may still be at work. Nothing waits for the command to come from afar.
        self._behind = data.View(Command, delay(m, c.as_value(), trailing(hw), "behind"))
        self._restart = delay(m, self.start, trailing(hw), "restart")
        self._late = data.View(Command, delay(m, self._behind.as_value(), int(hw.overlap), "late"))
        m.d.comb += self._pulses[0].eq(self.tick | (self.y_valid & (~c.dest[0] | c.spread)))
        place = self._places(m)
        q, r = self._operands(m, place)
        y, following = self._sums(m)
        nudge = self._nudges(m, platform, y, following)
        self._forces(m, q, r, y)
        self._move(m, q, nudge)
        if hw.general:
            self._results(m)
        return m

    # -- stages ----------------------------------------------------------------------------------------------------

    def _valid(self, stage: int):
        return self._pulses[stage] | self._pulses[stage + 1]

    def _slot(self, stage: int):
        return self._pulses[stage + 1]

    def _count(self, m: Module, step, first=0, start=None):
        unit = Signal(self.bits, name="count")
        with m.If(self.start if start is None else start):
            m.d.sync += unit.eq(first)
        with m.Elif(step):
            m.d.sync += unit.eq(unit + 1)
        return unit

    def _element(self, m: Module, step, start=None):
        """A count of elements of the state."""
        return self._count(m, step, self.first if self.hw.general else 0, start)

    def _momentum(self, m: Module, step, start=None):
        """A count of elements of the momenta; with an index memory the command tells where, a cycle after the start."""
        if not self.hw.depths.index:
            return self._element(m, step, start)
        return self._count(m, step, Mux(self.command.gather, self.moving, self.first), delay(m, self.start, 1, "begun"))

    def _source(self, slot):
        """Slot and context that a slot's state is read from."""
        c = self.command
        return Mux(c.spread, slot_sample(c.context, slot), slot), Mux(c.spread, Context.PAIR, c.context)

    # -- reads -----------------------------------------------------------------------------------------------------

    def _places(self, m: Module):
        """Address of the element read, beside that of the vector parameters; both read when the unit comes."""
        m.d.comb += [self.k_en.eq(self._pulses[self._operand - 1]), self.unit.eq(self._count(m, self.k_en))]
        if not self.hw.general and self._operand == 1:
            m.d.comb += self.q_r_en.eq(self.k_en)
            return self.unit
        if self.hw.depths.index:
            return self._gathered(m)
        place = self._element(m, self._pulses[0])
        if not self._twice:
            m.d.comb += self.q_r_en.eq(self._pulses[0])
            return place
        again = self._pulses[1]
        m.d.comb += self.q_r_en.eq(self._pulses[0] | again)
        return Mux(again, self._count(m, again, self.second), place)

    def _gathered(self, m: Module):
        """Address of the element read, counted or looked up."""
        m.submodules.gather = gather = Gather(self.hw)
        again = self._pulses[1] if self._twice else 0
        m.d.comb += [
            gather.start.eq(self.start), gather.first.eq(self.first), gather.second.eq(self.second),
            gather.gather.eq(self.command.gather), gather.gather_second.eq(self.command.gather_second),
            gather.read.eq(self._pulses[0]), gather.again.eq(again), gather.w_addr.eq(self.index_w_addr),
            gather.w_data.eq(self.index_w_data), gather.w_en.eq(self.index_w_en),
            self.q_r_en.eq(self._pulses[0] | again),
        ]
        if self.hw.repeat:
            m.d.comb += [gather.sweeping.eq(self.columns), gather.column.eq(self.column),
                         self.column_place.eq(gather.place)]
        return Mux(again, gather.other, gather.place)

    def _operands(self, m: Module, place):
        """Both slots are read and stay; the one whose turn it is, at the stage of operands, and the second operand if
        there is one."""
        c, r = self.command, None
        q = Signal(signed(self.hw.width))
        slot, context = self._source(self._slot(self._fetched))
        if not self._twice:
            m.d.comb += q.eq(delay(m, Mux(slot, self.q_b, self.q_a), self._operand - self._fetched, "position"))
        else:
            a, b = (Mux(self._source(slot)[0], self.q_b, self.q_a) for slot in (0, 1))
            r, after = Signal.like(q), Signal.like(q)
            m.d.sync += [q.eq(Mux(self._pulses[self._fetched], a, after)), after.eq(b)]
            m.d.comb += r.eq(Mux(self._pulses[self._fetched + 1], a, after))
        m.d.comb += [
            self.q_r_addr.eq(Cat(place, context)),
            self.emit_valid.eq(self._valid(self._operand) & c.emit), self.emit.eq(q),
        ]
        return q, r

    def _sums(self, m: Module):
        """The column's sums at stage 1, slot a's, then slot b's; and as they come into that register."""
        now, after = (Signal(signed(self.hw.accumulator), name=f"sum_{name}", reset_less=True)
                      for name in ("now", "after"))
        following = Mux(self.y_valid, self.y_a, after)
        m.d.sync += [now.eq(following), after.eq(self.y_b)]
        return now, following

    def _nudges(self, m: Module, platform, y, following):
        """Nudges of both samples wait in memory between their sweep and the kick, where they are read beside the
        momenta."""
        w, c = self.hw.width, self.command
        far = int(self.hw.overlap)
        early = self._kick - self._fetched - far  # momenta are needed a cycle behind nudges
        unit = self._momentum(m, self._pulses[early + 1])
        late = delay(m, unit, self._fetched - 1, "late")
        slot, context = self._source(self._slot(self._kick - 1 - far))
        sample = slot_sample(c.context, self._slot(early))
        m.d.comb += self.p_r_addr.eq(Cat(slot, late, context))
        if self.hw.cost is None or not self.hw.learn:
            return None
        m.submodules.nudges = nudges = make_bank(platform, latency=self._fetched, width=w, depth=2 << self.bits)
        rounded = arith.rnd(y, self.hw.nudge_shift)
        if self.hw.overlap:  # beside the register, not behind it
            rounded = delay(m, arith.rnd(following, self.hw.nudge_shift), 1, "nudge")
        first = delay(m, self.y_valid & c.dest[0], 1 + far, "arrived")
        second = delay(m, first, 1, "arrived_b")
        m.d.comb += [
            nudges.r_addr.eq(Cat(sample, unit)), nudges.r_en.eq(1), nudges.w_en.eq(first | second),
            nudges.w_addr.eq(Cat(second, self._count(m, second))),
            nudges.w_data.eq(delay(m, arith.sat(rounded, w), far, "clipped")),
        ]
        return nudges.r_data.as_signed()

    # -- motion ----------------------------------------------------------------------------------------------------

    def _forces(self, m: Module, q, r, y) -> None:
        c, step, at = self.command, self._step, self._forced
        y = delay(m, y, self._operand - 1, "y")
        if self.hw.general:
            y = Mux(self.sweeping, y, 0)
        feed(m, step, kind=Cat(c.kind, c.target, c.source), acc=y, q=q, r=r, table_w_addr=self.table_w_addr,
             table_w_data=self.table_w_data, table_w_half=self.table_w_half,
             table_w_en=self.table_w_en[:self._step_tables],
             **{f"k{i}": getattr(self, f"k{i}") for i in range(len(self.hw.vectors))})
        self._contributions(m, step)
        m.d.comb += [self.g_valid.eq(self._valid(at) & c.learn), self.g_slot.eq(self._slot(at)),
                     self.g_sample.eq(slot_sample(c.context, self._slot(at))),
                     self.g_unit.eq(self._count(m, self._pulses[at + 1]))]

    def _move(self, m: Module, q, nudge) -> None:
        """Kick, then drift; both written as soon as they are there."""
        c, w = self._late, self.hw.width
        kick = self._kicked_momentum(m, nudge)
        p_sum = Signal(signed(len(kick)), reset_less=True)
        # With overlap the sum is turned behind its register.
        p = arith.wrap(_turned(p_sum, ~c.reverse & ~c.clear) if self.hw.overlap else p_sum, w)
        self._drifting(m, p)
        d, late = self._drift.d, delay(m, q, self._moved - 2 - self._operand, "q")
        x = delay(m, _turned(late, c.reverse), 1, "q_turned")
        q_sum = Signal(signed(max(w, len(d)) + 1), reset_less=True)
        m.d.sync += [p_sum.eq(kick), q_sum.eq(_turned(Mux(c.drift, x + d, x), c.reverse))]
        with m.If(c.clear):
            m.d.sync += p_sum.eq(0)
        zero, writes = c.clear | ~self._valid(self._moved - 1), ~c.check & ~c.emit
        if self.hw.general:
            mapping = c.value | c.rows
            zero, writes = zero | mapping, writes & ~mapping
        with m.If(zero):
            m.d.sync += q_sum.eq(0)
        kicked, moved = self._valid(self._kicked) & writes, self._valid(self._moved) & writes
        if self.hw.depths.index:
            moved &= ~c.gather  # the position that was read is not the element's own
        element = self._momentum(m, self._pulses[self._kicked + 1], self._restart)
        m.d.comb += [
            self.p_w_en.eq(kicked), self.p_w_data.eq(p),
            self.p_w_addr.eq(Cat(self._slot(self._kicked), element, c.context)),
            self.q_w_en.eq(moved), self.q_w_slot.eq(self._slot(self._moved)), self.q_w_data.eq(arith.wrap(q_sum, w)),
            self.q_w_addr.eq(Cat(self._element(m, self._pulses[self._moved + 1], self._restart), c.context)),
            self.wrapped.eq((kicked & arith.outside(p_sum, w)) | (moved & arith.outside(q_sum, w))),
        ]
        far = int(self.hw.overlap)  # their sweep goes on for longer
        m.d.comb += self.moved.eq(Cat(
            delay(m, c.check & self._valid(stage), 2 * far, "checked")
            & delay(m, delay(m, word, far, "word") != 0, far, "astray")
            for stage, word in ((self._operand, q), (self._kick + self._fetched - 1 - far, self.p))).any())
        self._respond(m, arith.wrap(q_sum, w), moved)

    @property
    def _step_tables(self) -> int:
        return sum(len(p.tables()) for p in self.hw.step)

    def _contributions(self, m: Module, pipe) -> None:
        for i in range(len(self.hw.vectors)):
            if f"g{i}" in pipe.signature.members:
                m.d.comb += getattr(self, f"g{i}").eq(getattr(pipe, f"g{i}"))

    def _drifting(self, m: Module, p) -> None:
        """The drift's inputs, and its gradients."""
        drift, late = self._drift, self._kicked - self._operand
        feed(m, drift, kind=self.command.drift_kind, p=p, table_w_addr=self.table_w_addr,
             table_w_data=self.table_w_data, table_w_half=self.table_w_half,
             table_w_en=self.table_w_en[self._step_tables:],
             **{f"k{i}": delay(m, getattr(self, f"k{i}"), late, f"k{i}") for i in range(len(self.hw.vectors))
                if f"k{i}" in drift.signature.members})
        if not any(mass(self.hw)):
            return
        at = self._kicked + drift.latency
        self._contributions(m, drift)
        c = self._behind
        m.d.comb += [self.mass_valid.eq(self._valid(at) & c.mass), self.mass_slot.eq(self._slot(at)),
                     self.mass_sample.eq(slot_sample(c.context, self._slot(at))),
                     self.mass_unit.eq(self._count(m, self._pulses[at + 1], start=self._restart))]

    def _kicked_momentum(self, m: Module, nudge):
        """`arith.move` with one adder per operand: a - b is ~(~a + b). With overlap the last inversion, of all but
        reversed ones, is left to who takes the sum."""
        c, w = self._late, self.hw.width
        forward, force = ~c.reverse, self._step.force
        far = int(self.hw.overlap)
        sweeping = delay(m, self.sweeping, trailing(self.hw) + far, "swept")
        forces = c.force | sweeping if self.hw.general else sweeping & ~c.dest[0]
        change = delay(m, Mux(forces, force, 0), far, "forced")
        if nudge is not None:
            # In reverse: minus the nudge for slot a, plus it for slot b; the carry completes the minus.
            invert, gated = Signal(), Signal(signed(w))
            m.d.comb += [invert.eq(c.reverse & c.nudge & ~self._slot(self._kick - far)),
                         gated.eq(Mux(c.nudge & c.reverse, nudge, 0))]
            against = delay(m, Cat(invert, _turned(gated, invert)).as_signed(), far, "against")
            change = (Cat(1, change).as_signed() + against) >> 1
        change = delay(m, change.as_signed(), 1, "change")
        moved = _turned(delay(m, self.p, 2 - self._fetched + far, "p_read"), forward) + change
        return moved if self.hw.overlap else _turned(moved, forward)

    def _respond(self, m: Module, q, moved) -> None:
        """How far slot b's position is from slot a's, which came a cycle earlier."""
        first, difference = delay(m, q, 1, "first"), Signal(signed(self.hw.width + 1))
        m.d.comb += difference.eq(first - q)
        if self.hw.general:
            moved &= self.command.drift  # other passes may be over vectors that are no states
        with m.If(moved & self._slot(self._moved) & self._behind.echo):
            m.d.comb += self.response.eq(arith.abs_bits(difference))

    def _results(self, m: Module) -> None:
        """What passes to vectors or rows compute; a cycle later than a force kicks, so that both ways start at a
        register."""
        c, valid = self.command, Signal()
        m.d.comb += valid.eq(self._valid(self._forced) & (c.value | c.rows))
        m.d.sync += [self.mapped_valid.eq(valid),
                     self.mapped.eq(Mux(valid, arith.wrap(self._step.force, self.hw.width), 0))]


def _turned(x, condition):
    """``x``, or ``~x`` = -x - 1 if the condition holds."""
    return (x.as_unsigned() ^ condition.replicate(len(x))).as_signed()
