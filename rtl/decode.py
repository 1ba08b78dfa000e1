"""What opcodes and settings mean: to the sweep engine, which is told a cycle before a sweep may start, and to the
scoreboard."""

from amaranth.hdl import Module, Mux, Signal, Value

from echolith.compiler.design import Hardware
from echolith.compiler.isa import TILE_ROWS, Dest, Opcode
from echolith.compiler.timing import drained, reuse, tails
from echolith.rtl.command import first_tile, one_tile
from echolith.rtl.lane import Mode
from echolith.rtl.pipeline import delay, one_of
from echolith.rtl.sequencer import Sequencer
from echolith.rtl.sweep import Sweep

__all__ = ["Tiles", "decode_counts", "decode_mode", "decode_tail", "tile_rows"]


class Tiles:
    """Where the drive sweeps of one tile each have come."""

    def __init__(self, m: Module, hw: Hardware, s: Sequencer, e: Sweep):
        command, lanes = s.next_command, hw.lanes
        again = one_tile(command) & ~first_tile(command)
        address, row = Signal.like(e.base, name="drive_at"), Signal(range(hw.depths.rows + lanes), name="row_at")
        beside = Signal.like(e.base, name="drive_base")
        self.first = Mux(again, row, 0)  # row of the FORWARD sweep that waits
        m.d.sync += beside.eq(s.setting_base + s.setting_columns)
        self.base = Mux(s.waiting[Opcode.FORWARD] & command.source, Mux(again, address, beside), s.setting_base)
        with m.If(delay(m, s.starts[Opcode.FORWARD] & one_tile(command), 1, "launched_tile")):
            m.d.sync += [address.eq(e.base + s.setting_stride), row.eq(self.first + tile_rows(hw, s))]


def decode_counts(m: Module, hw: Hardware, s: Sequencer, e: Sweep) -> None:
    """The counts of the sweep that waits."""
    tiles, twice = s.setting_tiles, int(hw.packed is not None)  # two columns in TRANSPOSED, one lane, then one in OUTER
    columns, least = _later(m, hw, _forward_columns(hw, s)), _later(m, hw, _drained(hw, s))
    cycles, each = _later(m, hw, _outer_columns(m, hw, s)) << twice, tiles if hw.burst else Mux(tiles == 1, 2, tiles)
    forward, outer, transposed = (s.waiting[opcode] for opcode in (Opcode.FORWARD, Opcode.OUTER, Opcode.TRANSPOSED))
    rounds = Mux(one_tile(s.next_command), 1, tiles) if hw.paired else tiles
    elements, passes = s.setting_length << 1, ~(forward | outer | transposed)
    counts = (
        e.outer.eq(one_of([(forward, rounds), (outer, tiles), (transposed, s.setting_columns >> twice),
                           (passes, Mux(s.waiting[Opcode.UNITS], 1, tiles))])),
        e.period.eq(one_of([(forward, _later(m, hw, Mux(columns < least, least, columns))),
                            (outer, Mux(cycles < reuse(hw), reuse(hw), cycles) if hw.repeat else cycles),
                            (transposed, each << twice), (passes, elements)])),
        e.active.eq(one_of([(forward, _later(m, hw, columns)), (outer, cycles), (transposed, tiles << twice),
                            (passes, elements)])),
    )
    with m.If(1 if hw.overlap else ~e.running):
        m.d.sync += counts


def _later(m: Module, hw: Hardware, value):
    """With overlap a word waits for a cycle or two longer."""
    return delay(m, Value.cast(value), int(hw.overlap), "counted")


def tile_rows(hw: Hardware, s: Sequencer):
    """Rows of each tile of the block that is set."""
    return s.setting_rows[TILE_ROWS:] + 1 if hw.paired else hw.lanes


def _drained(hw: Hardware, s: Sequencer):
    """See `timing.drained`."""
    once, rows = drained(hw, Dest.DRIVE, 1) == 1, tile_rows(hw, s)
    return Mux(s.next_command.dest == Dest.DRIVE, rows, rows << 1) if once else rows << 1


def _forward_columns(hw: Hardware, s: Sequencer):
    """Columns that the sweep that waits goes over, if it is a FORWARD."""
    found = s.setting_columns
    if hw.paired:
        found = Mux(s.next_command.source, s.setting_extra, found)
    return Mux(s.next_command.nudge, 1, found) if hw.depths.deltas else found


def _outer_columns(m: Module, hw: Hardware, s: Sequencer):
    if not hw.paired:
        return s.setting_columns
    both = Signal(len(s.setting_columns) + 1)
    m.d.sync += both.eq(s.setting_columns + s.setting_extra)
    return Mux(s.next_command.source, both, s.setting_columns)


def _drive_tail(hw: Hardware, rows):
    """With `Hardware.paired` both slots' sums leave together, and a drive may not be there yet when they have."""
    least = tails(hw, 0).drive_taken
    return Mux(rows > least, rows, least) if hw.paired else least + (rows << 1)


def decode_mode(m: Module, s: Sequencer, mode) -> None:
    """What the array does in the sweep that goes over its addresses."""
    with m.Switch(s.opcode):
        for opcode in (Opcode.OUTER, Opcode.TRANSPOSED, Opcode.UPDATE):
            with m.Case(opcode):
                m.d.comb += mode.eq(Mode[opcode.name])
        with m.Default():
            m.d.comb += mode.eq(Mode.FORWARD)


def decode_tail(m: Module, hw: Hardware, s: Sequencer, opcode, command, tail) -> None:
    """Cycles until a sweep's last result is there, or until the row unit takes another's sums."""
    t, leave = tails(hw, 0), tile_rows(hw, s) << 1

    def later(value):
        """Settings are there earlier than the word."""
        return delay(m, Value.cast(value), int(hw.overlap), "tail")

    def result(step: int, value: int, rows: int):
        """A pass's tail by what becomes of its results."""
        return Mux(command.rows, rows, Mux(command.value, value, step)) if hw.general else step

    with m.Switch(opcode):
        with m.Case(Opcode.FORWARD):
            with m.Switch(command.dest):
                value = ((Dest.VALUE, t.value),) if hw.general else ()
                with m.Case(Dest.DRIVE):
                    m.d.comb += tail.eq(later(_drive_tail(hw, tile_rows(hw, s))))
                for dest, cycles in ((Dest.HIDDEN, t.hidden_taken), (Dest.COST, t.cost_taken), *value):
                    with m.Case(dest):
                        m.d.comb += tail.eq(later(cycles + leave))
        with m.Case(Opcode.TRANSPOSED):
            backlog = Mux(s.setting_tiles == 1, s.setting_columns - 1, 0) if hw.burst else 0
            nudges, backlog = command.dest[0] & ~command.spread, later(backlog)
            m.d.comb += tail.eq(Mux(nudges, t.nudge, result(t.step, t.step_value, t.step_rows)) + backlog)
        with m.Case(Opcode.UNITS):
            m.d.comb += tail.eq(result(t.units, t.units_value, t.units_rows))
        for opcode, cycles in ((Opcode.OUTER, t.outer), (Opcode.UPDATE, t.update)):
            with m.Case(opcode):
                m.d.comb += tail.eq(cycles)
