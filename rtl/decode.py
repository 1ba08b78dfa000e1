"""What opcodes and settings mean: to the sweep engine, which is told a cycle before a sweep may start, and to the
scoreboard."""

from amaranth.hdl import Module, Mux, Signal

from echolith.compiler.design import Hardware
from echolith.compiler.isa import Dest, Opcode
from echolith.compiler.timing import Tails, reuse
from echolith.rtl.lane import Mode
from echolith.rtl.sequencer import Sequencer
from echolith.rtl.sweep import Sweep

__all__ = ["decode_counts", "decode_mode", "decode_tail"]


def decode_counts(m: Module, hw: Hardware, s: Sequencer, e: Sweep) -> None:
    """The counts of the sweep that waits."""
    outer, period, active = (Signal.like(x, name=f"next_{name}") for name, x in (
        ("outer", e.outer), ("period", e.period), ("active", e.active)))
    columns = s.setting_columns
    with m.Switch(s.next_opcode):
        with m.Case(Opcode.FORWARD):
            m.d.comb += [outer.eq(s.setting_tiles), period.eq(s.setting_period), active.eq(columns)]
        with m.Case(Opcode.OUTER):
            least = reuse(hw)
            rounds = Mux(columns < least, least, columns) if hw.repeat else columns
            m.d.comb += [outer.eq(s.setting_tiles), period.eq(rounds), active.eq(columns)]
        with m.Case(Opcode.TRANSPOSED):
            tiles = s.setting_tiles
            m.d.comb += [outer.eq(columns), period.eq(Mux(tiles == 1, 2, tiles)), active.eq(tiles)]
        with m.Case(Opcode.UNITS, Opcode.UPDATE):
            m.d.comb += [outer.eq(Mux(s.next_opcode == Opcode.UNITS, 1, s.setting_tiles)),
                         period.eq(s.setting_length << 1), active.eq(s.setting_length << 1)]
        with m.Default():
            m.d.comb += [outer.eq(2), period.eq(s.setting_length), active.eq(s.setting_length)]
    m.d.sync += [e.outer.eq(outer), e.period.eq(period), e.active.eq(active)]


def decode_mode(m: Module, s: Sequencer, mode) -> None:
    """What the array does in the sweep that goes over its addresses."""
    with m.Switch(s.opcode):
        for opcode in (Opcode.OUTER, Opcode.TRANSPOSED, Opcode.UPDATE):
            with m.Case(opcode):
                m.d.comb += mode.eq(Mode[opcode.name])
        with m.Default():
            m.d.comb += mode.eq(Mode.FORWARD)


def decode_tail(m: Module, hw: Hardware, t: Tails, s: Sequencer, tail) -> None:
    """Cycles until that sweep's last result is there."""
    def result(step: int, value: int, rows: int):
        """A pass's tail by what becomes of its results."""
        return Mux(s.command.rows, rows, Mux(s.command.value, value, step)) if hw.general else step

    with m.Switch(s.opcode):
        with m.Case(Opcode.FORWARD):
            with m.Switch(s.command.dest):
                value = ((Dest.VALUE, t.value),) if hw.general else ()
                for dest, cycles in ((Dest.DRIVE, t.drive), (Dest.HIDDEN, t.hidden), (Dest.COST, t.cost), *value):
                    with m.Case(dest):
                        m.d.comb += tail.eq(cycles)
        with m.Case(Opcode.TRANSPOSED):
            m.d.comb += tail.eq(Mux(s.command.dest[0], t.nudge, result(t.step, t.step_value, t.step_rows)))
        with m.Case(Opcode.UNITS):
            m.d.comb += tail.eq(result(t.units, t.units_value, t.units_rows))
        for opcode, cycles in ((Opcode.OUTER, t.outer), (Opcode.UPDATE, t.update), (Opcode.FETCH, t.fetch)):
            with m.Case(opcode):
                m.d.comb += tail.eq(cycles)
