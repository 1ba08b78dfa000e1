"""The neuron unit's way of units: force, kick, nudge, drift, one element per cycle, slot a before slot b."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.isa import Context
from echolith.rtl.command import Command, slot_sample
from echolith.rtl.memory import Bank
from echolith.rtl.pipeline import ElementPipeline, delay
from echolith.sim import arith

__all__ = ["UnitPath"]


class Unit(data.Struct):
    """Where an element belongs; ``write`` if it moves."""

    valid: 1
    slot: 1
    sample: 1
    write: 1
    unit: 12


class UnitPath(wiring.Component):
    """Reads an element's state, moves it, writes it back.

    Members
    -------
    command, sweeping : In
        Held; ``sweeping`` if the elements come with forces.
    y_valid, y_a, y_b : In
        A column's sums: a force (``dest`` 0) or a nudge (``dest`` 1) of the next unit.
    tick : In
        The next unit without a sum. At least two cycles between ticks or sums.
    start : In
        Back to unit 0.
    q_r_*, p_r_*, k_* : state reads: both slots' positions, one slot's momentum, the vector parameters
    q_w_*, p_w_* : state writes
    g0..., learn_at : contributions to the vector gradients, one element per cycle
    wrapped, moved, response, emit, position : Out
        Flags, |q+ - q-| bits, and the position read (``emit`` commands).
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        w, acc = signed(hw.width), signed(hw.accumulator)
        self.bits = bits = (hw.depths.units - 1).bit_length()
        vectors = range(len(hw.vectors))
        super().__init__({
            "command": In(Command), "sweeping": In(1), "y_valid": In(1), "y_a": In(acc), "y_b": In(acc), "tick": In(1), "start": In(1),
            "q_r_addr": Out(bits + 2), "q_r_en": Out(1), "q_a": In(w), "q_b": In(w),
            "p_r_addr": Out(bits + 3), "p": In(w),
            "unit": Out(bits), **{f"k{i}": In(w) for i in vectors},
            "q_w_addr": Out(bits + 2), "q_w_slot": Out(1), "q_w_data": Out(w), "w_en": Out(1),
            "p_w_addr": Out(bits + 3), "p_w_data": Out(w),
            **{f"g{i}": Out(signed(2 * hw.width - 1)) for i in vectors}, "g_valid": Out(1), "g_slot": Out(1), "g_sample": Out(1),
            "g_unit": Out(bits),
            "wrapped": Out(1), "moved": Out(1), "response": Out(hw.width),
            "emit_valid": Out(1), "emit": Out(w),
            "table_w_addr": In(hw.segments), "table_w_data": In(hw.width), "table_w_half": In(1),
            "table_w_en": In(max(1, len(hw.step.tables()))),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.command
        pulse, unit, second = Signal(), Signal(self.bits), Signal()
        m.d.comb += pulse.eq(self.tick | (self.y_valid & ~c.dest[0]))
        with m.If(self.start):
            m.d.sync += unit.eq(0)
        with m.Elif(self.y_valid | self.tick):
            m.d.sync += unit.eq(unit + 1)
        m.d.sync += second.eq(pulse)
        held = delay(m, unit, 1, "unit")
        here = Mux(second, held, unit)
        m.d.comb += [self.unit.eq(unit), self.q_r_en.eq(pulse)]
        element, q, y, nudge = self._read(m, pulse, second, here)
        self._emit(m, element, q)
        self._move(m, element, q, y, nudge)
        return m

    def _read(self, m: Module, pulse, second, unit):
        """Addresses of slot a in the pulse's cycle, of slot b in the next; words one cycle later."""
        c, w = self.command, self.hw.width
        sample = slot_sample(c.context, second)
        source = Mux(c.spread, Context.PAIR, c.context)
        source_slot = Mux(c.spread, sample, second)
        m.d.comb += [self.q_r_addr.eq(Cat(unit, source)), self.p_r_addr.eq(Cat(source_slot, unit, source))]
        nudge = self._nudges(m, unit, sample)
        element = Signal(Unit)
        m.d.sync += [
            element.valid.eq(pulse | second), element.slot.eq(second), element.sample.eq(sample),
            element.write.eq((pulse | second) & ~c.check & ~c.emit), element.unit.eq(unit),
        ]
        chosen = delay(m, source_slot, 1, "chosen")
        y = [Signal(signed(self.hw.accumulator), name=f"held_{s}") for s in "ab"]
        with m.If(self.y_valid):
            m.d.sync += [y[0].eq(self.y_a), y[1].eq(self.y_b)]
        force = Mux(element.slot, y[1], y[0])
        q = Signal(signed(w))
        m.d.comb += q.eq(Mux(chosen, self.q_b, self.q_a))
        return element, q, force, nudge

    def _nudges(self, m: Module, unit, slot):
        """Nudges wait here between their sweep and the kick: slot a is written first, b one cycle later."""
        w, c = self.hw.width, self.command
        if self.hw.cost is None or not self.hw.learn:
            return 0
        m.submodules.nudges = bank = Bank(width=w, depth=2 << self.bits)
        arriving = self.y_valid & c.dest[0]
        later = delay(m, Cat(arriving, unit), 1, "late")
        late_y = delay(m, self.y_b, 1, "late_y")
        y = Mux(later[0], late_y, self.y_a)
        m.d.comb += [
            bank.r_addr.eq(Cat(slot, unit)), bank.r_en.eq(1), bank.w_en.eq(arriving | later[0]),
            bank.w_addr.eq(Mux(later[0], Cat(1, later[1:]), Cat(0, unit)[:self.bits + 1])),
            bank.w_data.eq(arith.sat(arith.rnd(y, self.hw.nudge_shift), w)),
        ]
        return bank.r_data.as_signed()

    def _emit(self, m: Module, element, q) -> None:
        c = self.command
        m.d.comb += [
            self.emit_valid.eq(element.valid & c.emit), self.emit.eq(q),
            self.moved.eq(element.valid & c.check & ((q != 0) | (self.p != 0))),
        ]

    def _move(self, m: Module, element, q, y, nudge) -> None:
        """Force, kick, drift, write."""
        hw, c, w = self.hw, self.command, self.hw.width
        m.submodules.step = step = ElementPipeline(hw.step, width=w, segments=hw.segments)
        m.submodules.drift = drift = ElementPipeline(hw.drift, width=w, segments=hw.segments)
        m.d.comb += [step.acc.eq(y), step.q.eq(q), step.table_w_addr.eq(self.table_w_addr),
                     step.table_w_data.eq(self.table_w_data), step.table_w_half.eq(self.table_w_half),
                     step.table_w_en.eq(self.table_w_en)]
        for i in range(len(hw.vectors)):
            m.d.comb += [getattr(step, f"k{i}").eq(getattr(self, f"k{i}")),
                         getattr(self, f"g{i}").eq(getattr(step, f"g{i}"))]
        at = delay(m, element, step.latency, "kicked")
        m.d.comb += [self.g_valid.eq(at.valid & c.learn), self.g_slot.eq(at.slot), self.g_sample.eq(at.sample),
                     self.g_unit.eq(at.unit)]
        kick = arith.move(delay(m, self.p, step.latency, "p"), Mux(self.sweeping, step.force, 0),
                          self._signed_nudge(m, nudge, step.latency, at), c.reverse)
        p_sum = Signal(signed(len(kick)))
        m.d.sync += p_sum.eq(kick)
        p = arith.wrap(p_sum, w)
        m.d.comb += drift.p.eq(p)
        q_late = delay(m, q, step.latency + 1 + drift.latency, "q")
        q_next = Mux(c.drift, Mux(c.reverse, q_late - drift.d, q_late + drift.d), q_late)
        q_sum = Signal(signed(len(q_next)))
        m.d.sync += q_sum.eq(q_next)
        end = delay(m, at, 2 + drift.latency, "moved")
        wrapped = arith.outside(delay(m, p_sum, drift.latency + 1, "p_sum"), w) | arith.outside(q_sum, w)
        self._write(m, end, arith.wrap(q_sum, w), delay(m, p, drift.latency + 1, "p_next"), wrapped)

    def _signed_nudge(self, m: Module, nudge, latency: int, at):
        if isinstance(nudge, int):
            return 0
        late = delay(m, nudge, latency, "nudge")
        return Mux(self.command.nudge, Mux(at.slot, -late, late), 0)

    def _write(self, m: Module, end, q, p, wrapped) -> None:
        c, w = self.command, self.hw.width
        zero = c.clear
        first = Signal(signed(w))
        difference = Signal(signed(w + 1))
        m.d.comb += [
            self.w_en.eq(end.write), self.q_w_slot.eq(end.slot),
            self.q_w_addr.eq(Cat(end.unit[:self.bits], c.context)),
            self.p_w_addr.eq(Cat(end.slot, end.unit[:self.bits], c.context)),
            self.q_w_data.eq(Mux(zero, 0, q)), self.p_w_data.eq(Mux(zero, 0, p)),
            self.wrapped.eq(end.write & ~zero & wrapped),
            difference.eq(first - q),
        ]
        with m.If(~end.slot):
            m.d.sync += first.eq(q)
        with m.If(end.write & end.slot & (c.context != Context.PAIR)):
            m.d.comb += self.response.eq(arith.abs_bits(difference))
