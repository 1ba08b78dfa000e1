"""What opcodes and settings mean: to the sweep engine, which is told a cycle before a sweep may start, and to the
scoreboard."""

from collections.abc import Callable

from amaranth.hdl import Const, Module, Mux, Signal

from echolith.compiler.design import Hardware
from echolith.compiler.isa import Dest, Opcode
from echolith.compiler.timing import Tails, drained, reuse
from echolith.rtl.command import first_tile, one_tile
from echolith.rtl.lane import Mode
from echolith.rtl.pipeline import delay
from echolith.rtl.sequencer import Sequencer
from echolith.rtl.sweep import Sweep

__all__ = ["Tiles", "decode_counts", "decode_mode", "decode_tail", "forward_room"]


class Tiles:
    """Where the drive sweeps of one tile each have come."""

    def __init__(self, m: Module, hw: Hardware, s: Sequencer, e: Sweep):
        command, lanes = s.next_command, hw.lanes
        again = one_tile(command) & ~first_tile(command)
        address, row = Signal.like(e.base, name="drive_at"), Signal(range(hw.depths.rows + lanes), name="row_at")
        beside = Signal.like(e.base, name="drive_base")
        self.first = Mux(again, row, 0)  # row of the FORWARD sweep that waits
        m.d.sync += beside.eq(s.setting_base + s.setting_columns)
        self.base = Mux((s.next_opcode == Opcode.FORWARD) & command.source, Mux(again, address, beside), s.setting_base)
        with m.If(delay(m, s.start & (s.next_opcode == Opcode.FORWARD) & one_tile(command), 1, "launched_tile")):
            m.d.sync += [address.eq(e.base + s.setting_stride), row.eq(self.first + lanes)]


def decode_counts(m: Module, hw: Hardware, s: Sequencer, e: Sweep) -> None:
    """The counts of the sweep that waits."""
    outer, period, active = (Signal.like(x, name=f"next_{name}") for name, x in (
        ("outer", e.outer), ("period", e.period), ("active", e.active)))
    columns, tiles = Signal.like(period, name="swept"), s.setting_tiles
    twice = int(hw.packed is not None)  # two columns at once in TRANSPOSED, one lane after the other in OUTER
    m.d.comb += columns.eq(_forward_columns(hw, s))
    with m.Switch(s.next_opcode):
        with m.Case(Opcode.FORWARD):
            m.d.comb += [outer.eq(Mux(one_tile(s.next_command), 1, tiles) if hw.paired else tiles),
                         period.eq(_most(columns, _drained(hw, s.next_command))), active.eq(columns)]
        with m.Case(Opcode.OUTER):
            cycles = _outer_columns(m, hw, s) << twice
            m.d.comb += [outer.eq(tiles), period.eq(_most(cycles, reuse(hw)) if hw.repeat else cycles),
                         active.eq(cycles)]
        with m.Case(Opcode.TRANSPOSED):
            each = tiles if hw.burst else Mux(tiles == 1, 2, tiles)
            m.d.comb += [outer.eq(s.setting_columns >> twice), period.eq(each << twice), active.eq(tiles << twice)]
        with m.Default():  # UNITS, UPDATE
            m.d.comb += [outer.eq(Mux(s.next_opcode == Opcode.UNITS, 1, s.setting_tiles)),
                         period.eq(s.setting_length << 1), active.eq(s.setting_length << 1)]
    m.d.sync += [e.outer.eq(outer), e.period.eq(period), e.active.eq(active)]


def _drained(hw: Hardware, command):
    """See `timing.drained`."""
    drive, other = (drained(hw, dest) for dest in (Dest.DRIVE, Dest.HIDDEN))
    return other if drive == other else Mux(command.dest == Dest.DRIVE, drive, other)


def _forward_columns(hw: Hardware, s: Sequencer, more: Callable = lambda columns: columns):
    """Columns that the sweep that waits goes over, if it is a FORWARD; or ``more`` of them."""
    found = more(s.setting_columns)
    if hw.paired:
        found = Mux(s.next_command.source, more(s.setting_extra), found)
    return Mux(s.next_command.nudge, more(Const(1)), found) if hw.depths.deltas else found


def forward_room(m: Module, hw: Hardware, s: Sequencer):
    """One more than the columns that the sweep that waits goes over, if it is a FORWARD."""
    return _forward_columns(hw, s, lambda columns: delay(m, columns + 1, 1, "room"))


def _outer_columns(m: Module, hw: Hardware, s: Sequencer):
    if not hw.paired:
        return s.setting_columns
    both = Signal(len(s.setting_columns) + 1)
    m.d.sync += both.eq(s.setting_columns + s.setting_extra)
    return Mux(s.next_command.source, both, s.setting_columns)


def _most(a, least: int):
    return Mux(a < least, least, a)


def decode_mode(m: Module, s: Sequencer, mode) -> None:
    """What the array does in the sweep that goes over its addresses."""
    with m.Switch(s.opcode):
        for opcode in (Opcode.OUTER, Opcode.TRANSPOSED, Opcode.UPDATE):
            with m.Case(opcode):
                m.d.comb += mode.eq(Mode[opcode.name])
        with m.Default():
            m.d.comb += mode.eq(Mode.FORWARD)


def decode_tail(m: Module, hw: Hardware, t: Tails, s: Sequencer, opcode, command, tail) -> None:
    """Cycles until a sweep's last result is there, or until the row unit takes another's sums."""
    def result(step: int, value: int, rows: int):
        """A pass's tail by what becomes of its results."""
        return Mux(command.rows, rows, Mux(command.value, value, step)) if hw.general else step

    with m.Switch(opcode):
        with m.Case(Opcode.FORWARD):
            with m.Switch(command.dest):
                value = ((Dest.VALUE, t.value),) if hw.general else ()
                for dest, cycles in ((Dest.DRIVE, t.drive_taken), (Dest.HIDDEN, t.hidden_taken),
                                     (Dest.COST, t.cost_taken), *value):
                    with m.Case(dest):
                        m.d.comb += tail.eq(cycles)
        with m.Case(Opcode.TRANSPOSED):
            backlog = Mux(s.setting_tiles == 1, s.setting_columns - 1, 0) if hw.burst else 0
            nudges = command.dest[0] & ~command.spread
            m.d.comb += tail.eq(Mux(nudges, t.nudge, result(t.step, t.step_value, t.step_rows)) + backlog)
        with m.Case(Opcode.UNITS):
            m.d.comb += tail.eq(result(t.units, t.units_value, t.units_rows))
        for opcode, cycles in ((Opcode.OUTER, t.outer), (Opcode.UPDATE, t.update)):
            with m.Case(opcode):
                m.d.comb += tail.eq(cycles)
