"""The core: array, neuron unit, sequencer and memories, connected. Reached through the register window only."""

import dataclasses

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Design, Hardware
from echolith.compiler.isa import TILE_ROWS, Context, Dest, Opcode, Setting, UpdateMode
from echolith.compiler.registers import ERRORS, Flag
from echolith.compiler.registers import Bank as BankId
from echolith.compiler.timing import arrived, fetched, filling, host_read, tails, trailing
from echolith.rtl.array import SynapseArray
from echolith.rtl.beat import Beat
from echolith.rtl.burst import Burst
from echolith.rtl.command import buffer, older, region
from echolith.rtl.decode import Tiles, decode_counts, decode_mode, decode_tail
from echolith.rtl.feed import Feed
from echolith.rtl.flags import Flags
from echolith.rtl.inputs import InputBuffers
from echolith.rtl.launched import Launched
from echolith.rtl.pipeline import delay, one_of
from echolith.rtl.results import Results
from echolith.rtl.rows import RowUnit
from echolith.rtl.scale import EXPONENT_BITS
from echolith.rtl.scoreboard import Scoreboard
from echolith.rtl.sequencer import Sequencer
from echolith.rtl.state import State
from echolith.rtl.sweep import Sweep
from echolith.rtl.ticks import Ticks
from echolith.rtl.units import UnitPath, mass
from echolith.rtl.values import ValueWriter
from echolith.rtl.vectors import VectorBank
from echolith.rtl.window import Window

__all__ = ["Core"]


class Core(wiring.Component):
    """A chip without a link.

    Parameters
    ----------
    design : Design or Hardware
        Only the hardware of a design becomes gates.

    Members
    -------
    bus_*, push, pull : see `Window`
    busy : Out(1)
    """

    def __init__(self, design: Design | Hardware):
        self.hw = design.hardware if isinstance(design, Design) else design
        super().__init__({
            "bus_addr": In(8), "bus_w_data": In(32), "bus_w_stb": In(1), "bus_r_stb": In(1), "bus_r_data": Out(32),
            "push": In(stream.Signature(32)), "pull": Out(stream.Signature(32)), "busy": Out(1),
        })

    def elaborate(self, platform):
        hw, m = self.hw, Module()
        masters = (BankId.WEIGHTS, BankId.GRADIENTS, BankId.VECTORS, BankId.VECTOR_GRADIENTS)
        m.submodules.window = self.window = Window(
            hardware_id=hw.hardware_id, wide=masters if 2 * hw.width > 32 else (), index_bits=_index_bits(hw),
            entry_bits=max(2 * hw.width, 32), read_cycles=host_read(hw), far=hw.overlap,
            halves=hw.overlap)
        m.submodules.sequencer = self.sequencer = Sequencer(hw)
        bits, self.tails = self.sequencer.settings, tails(hw, hw.lanes)
        m.submodules.sweep = self.sweep = Sweep(
            inner_bits=max((2 * hw.lanes).bit_length(), bits[Setting.LENGTH] + 1) + bool(hw.packed),
            outer_bits=max(bits[Setting.COLUMNS], bits[Setting.TILES]),
            address_bits=(hw.depths.weights - 1).bit_length(),
            repeat_bits=bits[Setting.REPEAT] if hw.repeat else 0, held=not hw.overlap)
        m.submodules.scoreboard = self.scoreboard = Scoreboard(
            hw, tail_bits=(max(dataclasses.astuple(self.tails)) + (hw.paired and 2 * hw.depths.units)).bit_length(),
            column_bits=bits[Setting.COLUMNS])
        m.submodules.array = self.array = SynapseArray(hw)
        m.submodules.rows = self.rows = RowUnit(hw)
        m.submodules.units = self.units = UnitPath(hw)
        self.vectors = [VectorBank(hw, shared) for shared in hw.vectors]
        m.submodules += self.vectors
        # It is named long before it is reached for.
        self._banks = {bank: delay(m, self.window.host_bank == bank, int(hw.overlap), "bank") for bank in BankId}
        self._bus(m)
        self._offset = self._starts(m)
        self._sweeps(m)
        self._samples(m)
        if hw.general:
            self._offsets(m)
        self._state(m)
        self._commands(m)
        self._vectors(m)
        self._flags(m)
        self._host(m)
        return m

    def _is(self, opcode: Opcode):
        return self.sequencer.doing[opcode]

    def _next_is(self, opcode: Opcode):
        return self.sequencer.waiting[opcode]

    def _bus(self, m: Module) -> None:
        w, s = self.window, self.sequencer
        for name in ("bus_addr", "bus_w_data", "bus_w_stb", "bus_r_stb"):
            m.d.comb += getattr(w, name).eq(getattr(self, name))
        wiring.connect(m, wiring.flipped(self.push), w.push)
        wiring.connect(m, w.pull, wiring.flipped(self.pull))
        m.d.comb += [
            self.bus_r_data.eq(w.bus_r_data), self.busy.eq(s.busy), w.busy.eq(s.busy | w.go),
            s.go.eq(w.go), s.stop.eq(w.stop), s.entry.eq(w.entry), s.pairs.eq(w.count),
            s.guard.eq((w.flags & ERRORS).any()),
        ]

    def _sweeps(self, m: Module) -> None:
        """The sweep engine, what it tells the array, and what may start behind it."""
        s, e, a, b = self.sequencer, self.sweep, self.array, self.scoreboard
        decode_counts(m, self.hw, s, e)
        twice = int(self.hw.packed is not None)
        stride = self._held(m, Setting.STRIDE if self.hw.overlap else Setting.COLUMNS)
        if self.hw.paired:
            self.tiles = tiles = Tiles(m, self.hw, s, e)
            m.d.sync += e.base.eq(tiles.base)
            m.d.comb += e.short.eq(s.waiting[Opcode.FORWARD])
            m.d.sync += b.passing.eq((s.setting_length << 1) + self.tails.units)
        else:
            m.d.comb += e.base.eq(s.setting_base)
        across = stride  # from a tile's column to the next tile's
        if twice:  # two columns of each tile
            back = Signal.like(stride, name="stride_back")
            m.d.sync += back.eq(stride - 1)
            across = Mux(e.inner_index[0], back, 1)
        decode_mode(m, s, a.mode)
        self._tail(m)
        m.d.comb += [
            e.start.eq(s.walks), e.stop.eq(s.stopping),
            b.starts.eq(s.starts), b.walks.eq(s.walks), b.opcode.eq(s.opcode), b.command.eq(s.command),
            b.walking.eq(e.running),
            s.free.eq(~e.running | (e.closing if self.hw.overlap else 0)),
            b.ended.eq(e.ended), b.taken.eq(a.taken), b.kinds.eq(s.waiting),
            b.next_command.eq(s.next_command), b.columns.eq(s.setting_columns),
            *([b.extra.eq(s.setting_extra)] if self.hw.paired else []),
            s.ready.eq(b.ready), s.still.eq(b.still), s.quiet.eq(b.quiet), s.idle.eq(b.idle),
            e.alternate.eq(self._is(Opcode.UNITS) | self._is(Opcode.UPDATE) | (self._is(Opcode.OUTER) & twice)),
            e.inner_step.eq(Mux(self._is(Opcode.TRANSPOSED), across, 1)),
            e.outer_step.eq(Mux(self._is(Opcode.TRANSPOSED), 1 + twice, stride)),
            a.valid.eq(e.valid & (self._is(Opcode.FORWARD) | self._is(Opcode.OUTER) | self._is(Opcode.TRANSPOSED)
                                 | (self._is(Opcode.UPDATE) & (s.command.kind == 0)))),
            a.first.eq(e.first), a.last.eq(e.last), a.address.eq(e.address),
            a.tile.eq(self._moved(Mux(self._is(Opcode.TRANSPOSED), e.inner_index >> twice, e.outer_index),
                                  Setting.TILE)),
            *([a.second.eq(e.inner_index[0])] if twice else []),
            a.coarse.eq(s.setting_rate[22:24]), a.update.eq(s.command.dest), a.region.eq(region(self.hw, s.command)),
            a.start.eq(s.starts[Opcode.FORWARD]),
            a.both.eq(self._both(s.command)),
        ]
        if self.hw.paired:
            last = self._held(m, Setting.ROWS)[TILE_ROWS:]
            m.d.comb += [a.last_lane.eq(last), b.fills.eq(filling(self.hw, last + 1))]

    def _both(self, command):
        """Of FORWARD: sums of both slots leave together."""
        return (command.dest == Dest.DRIVE) if self.hw.paired else 0

    def _tail(self, m: Module) -> None:
        """The tail of the sweep that goes over its addresses, with overlap known before it starts."""
        s, b = self.sequencer, self.scoreboard
        if not self.hw.overlap:
            decode_tail(m, self.hw, s, s.opcode, s.command, b.tail)
            return
        tail, later = (Signal.like(b.tail, name=name) for name in ("next_tail", "tail"))
        decode_tail(m, self.hw, s, s.next_opcode, s.next_command, tail)
        m.d.sync += later.eq(tail)
        with m.If(self.sweep.start):
            m.d.sync += b.tail.eq(later)

    def _moved(self, index, setting: Setting):
        """``index`` plus an offset that only general hardware has."""
        return index + self._offset[setting] if self.hw.general else index

    def _starts(self, m: Module) -> dict:
        """Where operands begin: as set, and further on in every walk of a repeated sweep."""
        s, e = self.sequencer, self.sweep
        if not self.hw.repeat:
            return {x: self._setting(x) for x in (Setting.SOURCE, Setting.TILE)} if self.hw.general else {}
        array = self._is(Opcode.FORWARD) | self._is(Opcode.OUTER) | self._is(Opcode.TRANSPOSED)
        m.d.comb += e.repeat.eq(Mux(array, s.setting_repeat, 0))
        found = {}
        places = ((Setting.SOURCE, s.setting_columns), (Setting.TILE, s.setting_tiles),
                  (Setting.FIRST, s.setting_columns))
        for setting, step in places:
            found[setting] = offset = Signal.like(self._setting(setting), name=setting.name.lower())
            with m.If(s.start):
                m.d.sync += offset.eq(self._setting(setting))
            with m.Elif(e.again):
                m.d.sync += offset.eq(offset + step)
        return found

    def _held(self, m: Module, setting: Setting):
        """As it was at the start of the sweep that goes over its addresses; others wait with theirs until it ends."""
        now = self._setting(setting)
        if not self.hw.paired:
            return now
        held = Signal.like(now, name=f"held_{setting.name.lower()}")
        with m.If(self.sweep.start):
            m.d.sync += held.eq(now)
        return held

    def _setting(self, setting: Setting):
        return getattr(self.sequencer, f"setting_{setting.name.lower()}")

    def _offsets(self, m: Module) -> None:
        """Places in the vectors, of row operands and of drives; results back to the vectors."""
        s, r, u = self.sequencer, self.rows, self.units
        m.submodules.values = self.values = v = ValueWriter(width=self.hw.width, bits=u.bits)
        m.d.comb += [
            u.first.eq(s.setting_first), u.second.eq(s.setting_second),
            r.mapped_valid.eq(u.mapped_valid & s.command.rows), r.mapped.eq(u.mapped),
            v.start.eq(s.start & Mux(self._next_is(Opcode.FORWARD), s.next_command.dest == Dest.VALUE,
                                     s.next_command.value)),
            v.first.eq(s.setting_place), v.context.eq(s.command.context),
            v.maximum.eq(s.command.maximum), v.contrast.eq(s.command.nudge if self.hw.stacked else 0),
            v.summed_valid.eq(r.value_valid), v.summed.eq(r.value),
            v.mapped_valid.eq(u.mapped_valid & s.command.value), v.mapped.eq(u.mapped),
        ]
        if self.hw.depths.index:
            w = self.window
            m.d.comb += [u.moving.eq(s.setting_place), u.index_w_addr.eq(w.host_index), u.index_w_data.eq(w.host_data),
                         u.index_w_en.eq(w.host_w_en & self._banks[BankId.INDEX])]

    def _samples(self, m: Module) -> None:
        """Rows of a pair's records to the inputs or to the targets."""
        hw, s, w = self.hw, self.sequencer, self.window
        m.submodules.feed = self.feed = f = Feed(
            hw, length_bits=len(s.setting_length), offset_bits=len(s.offset),
            word_bits=len(w.stream.payload))
        if hw.overlap:
            m.submodules.beat = beat = Beat(len(w.stream.payload))
            wiring.connect(m, w.stream, beat.i)
            wiring.connect(m, beat.o, f.pushed)
        else:
            wiring.connect(m, w.stream, f.pushed)
        m.d.comb += [
            f.go.eq(w.go), f.first.eq(w.first if hw.overlap else 0), f.next.eq(s.next),
            self.rows.next.eq(delay(m, s.next, 1 + fetched(hw), "next")),  # the last cost's exponent has come by then
            f.start.eq(s.starts[Opcode.FETCH]), f.next_command.eq(s.next_command),
            f.length.eq(s.setting_length), f.offset.eq(s.offset),
            f.offset_older.eq(s.offset_older if hw.paired else 0), f.stop.eq(s.stopping), f.streaming.eq(w.streaming),
            self.scoreboard.fed.eq(f.ended),
            self.rows.target_w_en.eq(f.found[0] & f.fetch.target), self.rows.target_w_addr.eq(f.found[1:]),
            self.rows.target_w_data.eq(f.targets),
        ]
        for index in range(2):
            with m.If(f.masked_en[index]):
                m.d.sync += self.rows.masked[index].eq(f.masked)

    def _state(self, m: Module) -> None:
        """Positions and momenta, between the neuron unit, the array, the feed and the host."""
        hw, s, u, w = self.hw, self.sequencer, self.units, self.window
        m.submodules.state = self.state = x = State(hw, bits=u.bits, index_bits=len(w.host_index))
        input_write = self.feed.found[0] & ~self.feed.fetch.target
        host, context = self._banks[BankId.POSITIONS], w.host_index[1 + u.bits:4 + u.bits]
        self.host_word = Signal(signed(2 * hw.width))
        m.d.comb += self.host_word.eq(Mux(w.host_en, w.host_data, 0))
        if hw.paired:
            self._inputs(m, input_write, host & (context >= Context.INPUT))
            host, input_write = host & (context < Context.INPUT), 0
        self._operands(m)
        moved, place, word = Cat(u.q_w_en & (u.q_w_slot == slot) for slot in range(2)), u.q_w_addr, u.q_w_data
        if hw.general:
            v = self.values
            moved, place, word = moved | v.w_en, Mux(v.w_en.any(), v.w_addr, place), word | v.w_data
        fed = self.feed.found[2:2 + u.bits] | Context.INPUT << u.bits
        m.d.comb += [
            x.busy.eq(s.busy), x.q_r_addr.eq(u.q_r_addr), x.q_r_en.eq(u.q_r_en), x.p_r_addr.eq(u.p_r_addr),
            x.q_w_en.eq(moved | Cat(input_write & (self.feed.found[1] == slot) for slot in range(2))),
            x.q_w_addr.eq(Mux(input_write, fed, place)),
            # Only one of them is not zero.
            x.q_w_data.eq(word | Mux(input_write, self.feed.inputs << hw.input_shift, 0)),
            x.p_w_en.eq(u.p_w_en), x.p_w_addr.eq(u.p_w_addr), x.p_w_data.eq(u.p_w_data),
            x.host_index.eq(w.host_index), x.host_word.eq(self.host_word), x.host_q_en.eq(w.host_w_en & host),
            x.host_p_en.eq(w.host_w_en & self._banks[BankId.MOMENTA]),
            u.q_a.eq(x.q_a), u.q_b.eq(x.q_b), u.p.eq(x.p),
        ]

    def _operands(self, m: Module) -> None:
        """What the array multiplies by: words of the state or of the inputs, or the rate."""
        hw, s, e, u, x = self.hw, self.sequencer, self.sweep, self.units, self.state
        column = Mux(self._is(Opcode.TRANSPOSED), e.outer_index, self._column())[:u.bits]
        column = self._moved(column, Setting.SOURCE)[:u.bits]
        if hw.repeat and hw.depths.index:
            first = self._offset[Setting.FIRST]
            m.d.comb += [
                u.columns.eq(self._is(Opcode.FORWARD) | self._is(Opcode.OUTER)),
                u.column.eq(Mux(e.again, first + s.setting_columns, first) + e.next_index),
            ]
            column = Mux(s.command.gather, u.column_place, column)
        context = s.command.context if hw.paired else Mux(s.command.source, Context.INPUT, s.command.context)
        m.d.comb += [x.x_addr.eq(Cat(column, context)),
                     x.swept.eq(self._is(Opcode.FORWARD) | self._is(Opcode.OUTER))]
        source = self._from_inputs if hw.paired else s.command.source
        sample = [Mux(source, s.command.context == 2, 0), Mux(source & (s.command.context == 1), 0, 1)]
        chosen = [delay(m, second, fetched(hw), "source") for second in sample]
        source = delay(m, source, fetched(hw), "from_inputs")
        mantissa = s.setting_rate[:hw.width].as_signed()
        for slot, operand in enumerate((self.array.x_a, self.array.x_b)):
            word = Mux(chosen[slot], x.x_b, x.x_a)
            if hw.paired:
                fed = Mux(chosen[slot], self.inputs.r_b, self.inputs.r_a).as_signed()
                word = Mux(source, fed, (x.x_a, x.x_b)[slot])
            rate = mantissa
            if hw.shrinks and slot == 0:  # a weight has no upper half
                rate = Mux(s.command.dest == UpdateMode.SHRINK, 0, mantissa)
            m.d.comb += operand.eq(Mux(self._is(Opcode.UPDATE), rate, word))

    def _column(self):
        """Of FORWARD and OUTER; packed products stay at one for both lanes of a pair in OUTER."""
        index = self.sweep.inner_index
        return Mux(self._is(Opcode.OUTER), index >> 1, index) if self.hw.packed else index

    def _inputs(self, m: Module, write, host) -> None:
        """Buffers of inputs, beside the positions; an OUTER sweep comes to them behind its own columns."""
        s, e, w, bits = self.sequencer, self.sweep, self.window, self.units.bits
        forward, columns = self._is(Opcode.FORWARD), self._held(m, Setting.COLUMNS)
        self._from_inputs = s.command.source & (forward | (self._column() >= columns))
        # Counted for itself, as the buffers may be far away.
        index, begin, place = Signal(bits, name="input"), Signal(bits, name="input_begin"), w.host_index[1:1 + bits]
        step = ~self._is(Opcode.OUTER) | e.inner_index[0] if self.hw.packed else 1
        m.d.sync += index.eq(Mux(e.closes, begin, index + step))
        with m.If(e.start):
            before = Mux(self._next_is(Opcode.FORWARD), 0, 0 - self._setting(Setting.COLUMNS))
            m.d.sync += [begin.eq(before), index.eq(before)]
        m.submodules.inputs = self.inputs = x = InputBuffers(self.hw, bits=bits)
        m.d.comb += [
            x.busy.eq(s.busy), x.r_addr.eq(Cat(index, buffer(s.command))),
            x.w_en.eq(write), x.w_slot.eq(self.feed.found[1]),
            x.w_addr.eq(Cat(self.feed.found[2:2 + bits], buffer(self.feed.fetch))),
            x.w_data.eq(self.feed.inputs << self.hw.input_shift),
            x.host_w_en.eq(w.host_w_en & host), x.host_slot.eq(w.host_index[0]),
            x.host_addr.eq(Cat(place, (w.host_index[1 + bits:3 + bits] + 1)[:2])), x.host_data.eq(self.host_word),
        ]

    def _commands(self, m: Module) -> None:
        """What the units behind the array work on: the sweep whose results reach them, and its settings."""
        s, r, u = self.sequencer, self.rows, self.units
        mine = Cat(r.command, r.rows, *self._beside_rows())
        if not self.hw.overlap:
            m.d.comb += [mine.eq(self._given(s.opcode, s.command)), u.command.eq(s.command),
                         u.sweeping.eq(self._is(Opcode.TRANSPOSED)), r.start.eq(s.start), u.start.eq(s.start)]
            return
        forward, sweeping = self._next_is(Opcode.FORWARD), self._next_is(Opcode.TRANSPOSED)
        moves = sweeping | self._next_is(Opcode.UNITS)
        if self.hw.depths.index:
            moves |= s.next_command.gather  # the array's columns are looked up there
        given = self._given(s.next_opcode, s.next_command)
        directly = s.start & ~forward & s.next_command.rows if self.hw.general else 0
        working = Signal(len(given))
        launched, begins = s.starts[Opcode.FORWARD], s.start & moves
        if self.hw.paired:  # the word still stands there
            launched, begins = delay(m, launched, 1, "launched"), self._following(m, delay(m, begins, 1, "begins"))
            given = Cat(given, self.tiles.first)
        m.submodules.launched = oldest = Launched(len(given), two=self.hw.paired)
        m.d.comb += [
            oldest.start.eq(launched), oldest.i.eq(given), oldest.taken.eq(self.array.taken),
            mine.eq(working), r.start.eq(self.array.taken | directly), u.start.eq(begins),
        ]
        if self.hw.paired:
            m.d.comb += r.first.eq(oldest.o[-len(r.first):])
        with m.If(self.array.taken):
            m.d.sync += working.eq(oldest.o)
        with m.Elif(directly):
            m.d.sync += working.eq(given)
        if not self.hw.paired:
            with m.If(u.start):
                m.d.sync += [u.command.eq(s.next_command), u.sweeping.eq(sweeping)]

    def _following(self, m: Module, begins):
        """The start of what moves units, in the neuron unit: that of a TRANSPOSED sweep just before its first sums."""
        s, u, swept = self.sequencer, self.units, self._next_is(Opcode.TRANSPOSED)
        sums, command = delay(m, begins & swept, arrived(self.hw) - 2, "sums"), Signal.like(u.command)
        self._ticking = begins & ~swept
        with m.If(begins & swept):
            m.d.sync += command.eq(s.next_command)
        with m.If(self._ticking):
            m.d.sync += [u.command.eq(s.next_command), u.sweeping.eq(0)]
        with m.Elif(sums):
            m.d.sync += [u.command.eq(command), u.sweeping.eq(1)]
        return self._ticking | sums

    def _given(self, opcode, command):
        """What the row unit needs to know of a sweep."""
        s = self.sequencer
        given = Cat(command, s.setting_rows[:len(self.rows.rows)])
        if self.hw.paired:
            return Cat(given, s.setting_rows[TILE_ROWS:])
        if not self.hw.general:
            return given
        return Cat(given, s.setting_drive, Mux(opcode == Opcode.TRANSPOSED, s.setting_into, s.setting_tile))

    def _beside_rows(self) -> tuple:
        """Where they go, beside the command and the rows."""
        if self.hw.paired:
            return (self.array.last_leaving,)
        return (self.rows.drive, self.rows.tile) if self.hw.general else ()

    def _vectors(self, m: Module) -> None:
        """Neuron unit, row unit and array to each other; the vector parameters beside the unit path."""
        s, a, r, u, w = self.sequencer, self.array, self.rows, self.units, self.window
        m.d.comb += [
            r.range.eq(w.range), r.gain.eq(w.gain),
            r.acc_next.eq(a.drain_next), r.acc.eq(a.drain), r.acc_b.eq(a.drain_b),
            *([r.acc_last.eq(a.drain_last)] if self.hw.paired else []),
            a.row_a.eq(r.row_a), a.row_b.eq(r.row_b),
        ]
        y = a.y_valid, a.y_a, a.y_b
        if self.hw.burst:
            m.submodules.burst = b = Burst(self.hw)
            m.d.comb += [b.i_valid.eq(y[0]), b.i_a.eq(y[1]), b.i_b.eq(y[2])]
            y = b.o_valid, b.o_a, b.o_b
        m.d.comb += [u.y_valid.eq(y[0]), u.y_a.eq(y[1]), u.y_b.eq(y[2])]
        if self.hw.paired:
            m.submodules.ticks = ticks = Ticks(len(s.setting_length))
            m.d.comb += [ticks.start.eq(self._ticking), ticks.length.eq(s.setting_length),
                         u.tick.eq(ticks.tick)]
        else:
            m.d.comb += u.tick.eq(self.sweep.valid & self._is(Opcode.UNITS))
        updating, exponents = self._is(Opcode.UPDATE) & self.sweep.valid, self._exponents(m)
        for index, (bank, drifting) in enumerate(zip(self.vectors, mass(self.hw), strict=True)):
            valid, slot, sample, unit = (
                getattr(u, f"{'mass' if drifting else 'g'}_{name}") for name in ("valid", "slot", "sample", "unit"))
            chosen = w.host_en & ((w.host_index >> u.bits) == index)
            if self.hw.adding:
                m.d.comb += bank.g_add.eq(delay(m, u.command.context == Context.PAIR, trailing(self.hw), "add"))
            m.d.comb += [
                bank.addr.eq(u.unit), bank.r_en.eq(u.k_en),
                getattr(u, f"k{index}").eq(bank.k),
                bank.g.eq(getattr(u, f"g{index}")), bank.g_valid.eq(valid), bank.g_slot.eq(slot),
                bank.g_unit.eq(unit), bank.exponent.eq(Mux(sample, *reversed(exponents))),
                bank.update_valid.eq(updating & (s.command.kind == index + 1)), bank.update.eq(s.command.dest),
                bank.update_addr.eq(self.sweep.address), bank.mantissa.eq(s.setting_rate[:self.hw.width].as_signed()),
                bank.coarse.eq(s.setting_rate[22:24]),
                bank.host.eq(w.host_en), bank.host_addr.eq(w.host_index), bank.host_data.eq(self.host_word),
                bank.host_w_en.eq(w.host_w_en & chosen & self._banks[BankId.VECTORS]),
                bank.host_g_en.eq(w.host_w_en & chosen & self._banks[BankId.VECTOR_GRADIENTS]),
            ]

    def _exponents(self, m: Module) -> list:
        """Of both samples, beyond the gain."""
        r, found = self.rows, []
        before = delay(m, older(self.units.command), trailing(self.hw), "older") if self.hw.paired else 0
        for sample in "ab":
            exponent = getattr(r, f"exponent_{sample}")
            if self.hw.paired:
                exponent = Mux(before, getattr(r, f"older_{sample}"), exponent)
            found.append(delay(m, (exponent - self.window.gain)[:EXPONENT_BITS], int(self.hw.overlap),
                               f"exponent_{sample}"))
        return found

    def _flags(self, m: Module) -> None:
        """Outputs, and what a run leaves in the registers."""
        w, s, u, a, r = self.window, self.sequencer, self.units, self.array, self.rows
        m.submodules.results = self.results = results = Results(self.hw, index_bits=len(w.host_index))
        m.submodules.flags = flags = Flags(self.hw)
        alarm, large = (getattr(a, name) | Cat(getattr(bank, name) for bank in self.vectors).any()
                        for name in ("alarm", "large"))
        raised = {Flag.WRAPPED: u.wrapped, Flag.ECHO: u.moved, Flag.GRADIENT: alarm, Flag.LARGE: large}
        m.d.comb += [
            results.go.eq(w.go), results.into.eq(w.into), results.r_addr.eq(w.host_index),
            results.costed_valid.eq(r.result_valid), results.costed.eq(r.result),
            results.emitted_valid.eq(u.emit_valid), results.emitted.eq(u.emit),
            flags.go.eq(w.go), flags.busy.eq(s.busy), flags.raised.eq(Cat(raised[flag] for flag in Flag)),
            flags.response_word.eq(u.response), flags.leading_word.eq(r.leading),
            flags.clipped.eq(a.clipped + sum(bank.clipped for bank in self.vectors)),
            flags.waiting.eq(self.feed.waiting), w.status.eq(Cat(s.busy | w.go, self.feed.waiting)),
            *(getattr(w, name).eq(getattr(flags, name))
              for name in ("flags", "response", "leading", "saturated", "cycles", "stalls")),
        ]

    def _host(self, m: Module) -> None:
        """Memory banks behind the window, while idle; order, data and results at any time. Program, tables, order and
        data can only be written."""
        hw, w, s, a, r, u = self.hw, self.window, self.sequencer, self.array, self.rows, self.units
        depth = (hw.depths.weights - 1).bit_length()
        pushed = {bank: w.host_w_en & self._banks[bank] for bank in BankId}
        slot = w.host_index >> (hw.segments + 1)
        cost = sum(len(p.tables()) for p in hw.activate)
        step = cost + (len(hw.cost.tables()) if hw.cost else 0)
        for unit, base in ((r, 0), (u, step)):
            m.d.comb += [
                unit.table_w_addr.eq(w.host_index >> 1), unit.table_w_half.eq(w.host_index[0]),
                unit.table_w_data.eq(w.host_data),
                unit.table_w_en.eq(Cat(pushed[BankId.TABLES] & (slot == base + i)
                                       for i in range(len(unit.table_w_en)))),
            ]
        m.d.comb += [
            s.program_w_en.eq(pushed[BankId.PROGRAM]), s.program_addr.eq(w.host_index),
            s.program_w_data.eq(w.host_data),
            self.feed.order_w_en.eq(pushed[BankId.ORDER]), self.feed.lines_w_en.eq(pushed[BankId.DATA]),
            self.feed.w_addr.eq(w.host_index), self.feed.w_data.eq(w.host_data),
            a.host_addr.eq(w.host_index), a.host_lane.eq(w.host_index >> depth), a.host_data.eq(self.host_word),
            a.host_en.eq(w.host_en), a.host_w_en.eq(pushed[BankId.WEIGHTS]),
            a.host_g_en.eq(pushed[BankId.GRADIENTS]),
        ]
        read = {BankId.WEIGHTS: a.host_w_data, BankId.GRADIENTS: a.host_g_data,
                BankId.RESULTS: self.results.r_data,
                BankId.POSITIONS: Mux(w.host_index[0], self.state.q_b, self.state.q_a),
                BankId.MOMENTA: self.state.p}
        for bank, port in ((BankId.VECTORS, "host_w_data"), (BankId.VECTOR_GRADIENTS, "host_g_data")):
            if self.vectors:
                found = Array([getattr(vector, port) for vector in self.vectors])[w.host_index >> u.bits]
                read[bank] = delay(m, found, int(hw.overlap), "vector")
        near, far = [], []  # from the lanes, and from elsewhere
        for bank, value in read.items():
            (far if bank in (BankId.WEIGHTS, BankId.GRADIENTS) else near).append((self._banks[bank], value))
        m.d.sync += w.host_read.eq(delay(m, one_of(far), int(hw.overlap), "far") | delay(
            m, one_of(near), int(hw.overlap), "near"))


def _index_bits(hw: Hardware) -> int:
    """Bits of an index into the largest bank."""
    d = hw.depths
    entries = (d.program, hw.tables << hw.segments + 1, d.order, d.data, hw.lanes * d.weights,
               len(hw.vectors) * d.units, 2 * hw.contexts * d.units, d.results, d.index)
    return (max(entries) - 1).bit_length()
