"""The way of a forward sweep's sums to row operands: drive, activation, cost derivative."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.isa import Dest
from echolith.rtl.command import Command, slot_sample
from echolith.rtl.lane import RowWrite
from echolith.rtl.memory import Bank
from echolith.rtl.pipeline import ElementPipeline, delay
from echolith.sim import arith
from echolith.sim.model import SHIFT_LIMIT

__all__ = ["RowUnit"]


class Element(data.Struct):
    """Where a sum belongs, carried beside it through the pipelines; ``real`` if its row exists."""

    valid: 1
    real: 1
    slot: 1
    sample: 1
    lane: 8
    tile: 12


class RowUnit(wiring.Component):
    """One sum per cycle in, row operands, outputs and leading bits out.

    Members
    -------
    command, rows : In
        Held during the sweep.
    acc_* : In
        The array's drain.
    start : In(1)
        A forward sweep begins.
    next : In(1)
        A new pair of samples: forget the costs' leading bits.
    masked : In(2)
        Samples of the pair that have no cost.
    range : In(8)
        Response exponent R.
    gain : In(5)
        Gradient words are 2^gain times finer; exponents are at least this.
    exponents, scales : Out
        Nudge exponent of sample a and of sample b; the same less the gain.
    leading : Out
        Magnitude bits of this cycle's free cost derivative.
    row_*, result_* : Out
        Operand writes; output words in order of rows, slot a before slot b.
    target_w_*, table_w_* : In
        Writes of targets and tables; tables of the activation come before those of the cost.
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        w, tile = signed(hw.width), (hw.depths.tiles - 1).bit_length()
        self.row_bits = (hw.depths.rows - 1).bit_length()
        self.output_bits = max(1, (hw.depths.outputs - 1).bit_length())
        super().__init__({
            "command": In(Command), "rows": In(self.row_bits + 1), "start": In(1), "next": In(1), "masked": In(2),
            "range": In(8), "gain": In(5),
            "acc_valid": In(1), "acc": In(signed(hw.accumulator)), "acc_slot": In(1), "acc_lane": In(8),
            "acc_tile": In(tile),
            "exponents": Out(10), "scales": Out(10), "leading": Out(hw.width),
            "row_t": Out(RowWrite), "row_s": Out(RowWrite), "row_tile_t": Out(tile), "row_tile_s": Out(tile),
            "row_data_t": Out(w), "row_data_s": Out(w),
            "result_valid": Out(1), "result": Out(w),
            "target_w_en": In(1), "target_w_addr": In(self.output_bits + 1), "target_w_data": In(hw.data_width),
            "table_w_addr": In(hw.segments), "table_w_data": In(hw.width), "table_w_half": In(1),
            "table_w_en": In(max(1, hw.tables)),
        })

    def elaborate(self, platform):
        m = Module()
        self._scaled, self._scaled_at = Signal(signed(self.hw.width)), Signal(Element)
        row, sample = Signal(self.row_bits + 1), Signal()
        m.d.comb += sample.eq(slot_sample(self.command.context, self.acc_slot))
        with m.If(self.start):
            m.d.sync += row.eq(0)
        with m.Elif(self.acc_valid & self.acc_slot):
            m.d.sync += row.eq(row + 1)
        element = Signal(Element)
        m.d.comb += [
            element.valid.eq(self.acc_valid), element.real.eq(self.acc_valid & (row < self.rows)),
            element.slot.eq(self.acc_slot), element.sample.eq(sample), element.lane.eq(self.acc_lane),
            element.tile.eq(self.acc_tile),
        ]
        now = delay(m, element, 1, "element")  # beside the words read from the drive and target memories
        acc = delay(m, self.acc, 1, "acc")
        drive = self._drives(m, row, sample, acc, now)
        self._activation(m, acc, drive, now)
        if self.hw.cost is not None:
            self._cost(m, acc, row, sample, now)
        return m

    def _exponent(self, sample):
        return Mux(sample, self.exponents[5:], self.exponents[:5])

    def _drives(self, m: Module, row, sample, acc, now):
        """Drives of both samples, kept from one drive sweep to the next."""
        w = self.hw.width
        m.submodules.drives = bank = Bank(width=w, depth=2 * self.hw.depths.rows)
        kept = delay(m, Cat(sample, row), 1, "kept")
        m.d.comb += [
            bank.r_addr.eq(Cat(sample, row)), bank.r_en.eq(1),
            bank.w_addr.eq(kept), bank.w_en.eq(now.real & (self.command.dest == Dest.DRIVE)),
            bank.w_data.eq(arith.sat(arith.rnd(acc, self.hw.drive_shift), w)),
        ]
        return bank.r_data.as_signed()

    def _activation(self, m: Module, acc, drive, now):
        hw = self.hw
        m.submodules.activate = pipe = ElementPipeline(hw.activate, width=hw.width, segments=hw.segments)
        count = len(hw.activate.tables())
        m.d.comb += [pipe.acc.eq(acc), pipe.drive.eq(drive), pipe.table_w_addr.eq(self.table_w_addr),
                     pipe.table_w_data.eq(self.table_w_data), pipe.table_w_half.eq(self.table_w_half),
                     pipe.table_w_en.eq(self.table_w_en[:count])]
        entry = Signal(Element)
        m.d.comb += [entry.eq(now), entry.valid.eq(now.valid & (self.command.dest == Dest.HIDDEN))]
        at = delay(m, entry, pipe.latency, "activated")
        with m.If(self.command.dest == Dest.HIDDEN):
            self._write(m, at, pipe.t, arith.shr(pipe.t, Mux(at.sample, self.scales[5:], self.scales[:5])), 1, self.command.echo)
        m.d.sync += [  # the scaled twin follows one cycle behind
            self.row_s.enable.eq(self._scaled_at.valid), self.row_s.lane.eq(self._scaled_at.lane),
            self.row_s.slot.eq(self._scaled_at.slot), self.row_tile_s.eq(self._scaled_at.tile),
            self.row_data_s.eq(self._scaled),
        ]

    def _write(self, m: Module, at, t, scaled, t_on, s_on) -> None:
        """Register an operand and its scaled twin. Rows beyond the block are written as 0."""
        m.d.sync += [
            self.row_t.enable.eq(at.valid & t_on), self.row_t.lane.eq(at.lane), self.row_t.slot.eq(at.slot),
            self.row_tile_t.eq(at.tile), self.row_data_t.eq(Mux(at.real, t, 0)),
            self._scaled_at.eq(at), self._scaled_at.valid.eq(at.valid & s_on),
            self._scaled.eq(Mux(at.real, scaled, 0)),
        ]

    def _cost(self, m: Module, acc, row, sample, now) -> None:
        """Free phase: outputs, leading bits, the readout's own operands. Echo: derivatives scaled to the response."""
        hw, w = self.hw, self.hw.width
        m.submodules.cost = pipe = ElementPipeline(hw.cost, width=w, segments=hw.segments)
        m.submodules.targets = targets = Bank(width=hw.data_width, depth=2 * hw.depths.outputs)
        first = len(hw.activate.tables())
        m.d.comb += [
            targets.r_addr.eq(Cat(sample, row)), targets.r_en.eq(1), targets.w_en.eq(self.target_w_en),
            targets.w_addr.eq(self.target_w_addr), targets.w_data.eq(self.target_w_data),
            pipe.acc.eq(acc), pipe.target.eq(targets.r_data.as_signed()), pipe.table_w_addr.eq(self.table_w_addr),
            pipe.table_w_data.eq(self.table_w_data), pipe.table_w_half.eq(self.table_w_half),
            pipe.table_w_en.eq(self.table_w_en[first:first + len(hw.cost.tables())]),
        ]
        entry, cost = Signal(Element), self.command.dest == Dest.COST
        m.d.comb += [entry.eq(now), entry.valid.eq(now.valid & cost), entry.real.eq(now.real & cost)]
        at = delay(m, entry, pipe.latency, "costed")
        m.d.comb += [self.result.eq(pipe.y), self.result_valid.eq(at.real & self.command.emit)]
        if hw.learn:
            self._derivative(m, at, pipe.delta)

    def _derivative(self, m: Module, at, value) -> None:
        hw, w = self.hw, self.hw.width
        delta = Signal(signed(w))
        m.d.comb += delta.eq(Mux(self.masked.bit_select(at.sample, 1), 0, value))
        shifted = delta << Mux(self.command.echo, self._exponent(at.sample), self.gain)  # one shifter for both
        own = Signal(signed(w))
        m.d.comb += own.eq(arith.sat(arith.rnd(shifted, hw.readout_shift), w - 1))
        nudge = arith.sat(arith.rnd(shifted, hw.delta_shift), w)
        signed_delta = Mux(at.slot, -own, own)
        with m.If(self.command.dest == Dest.COST):
            self._write(m, at, nudge, signed_delta, self.command.echo, ~self.command.echo)
        self._leading(m, at, delta)

    def _leading(self, m: Module, at, delta) -> None:
        """OR of the cost derivatives' magnitudes per sample; its leading bit sets the sample's exponent."""
        with m.If(at.real & ~self.command.echo):
            m.d.comb += self.leading.eq(arith.abs_bits(delta))
        for sample in range(2):
            bits = Signal(self.hw.width, name=f"leading_{sample}")
            with m.If(self.next):
                m.d.sync += bits.eq(0)
            with m.Elif(at.real & ~self.command.echo & (at.sample == sample)):
                m.d.sync += bits.eq(bits | arith.abs_bits(delta))
            position = Signal(range(self.hw.width))
            for index in range(self.hw.width):
                with m.If(bits[index]):
                    m.d.comb += position.eq(index)
            exponent = Signal(5)
            m.d.comb += exponent.eq(arith.exponent(self.range, position, self.gain, SHIFT_LIMIT))
            m.d.sync += [self.exponents[5 * sample:5 * sample + 5].eq(exponent),
                         self.scales[5 * sample:5 * sample + 5].eq(exponent - self.gain)]
