"""One lane: a weight bank, a gradient bank, two multipliers (slots a and b) and the operands of its rows."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.registers import LARGE_BITS
from echolith.rtl.memory import Bank
from echolith.rtl.update import UpdateTail
from echolith.sim import arith

__all__ = ["Lane", "LaneControl", "Mode", "RowWrite"]


class Mode(enum.Enum, shape=2):
    """What the multipliers work on."""

    FORWARD = 0  # weight * x
    OUTER = 1  # row operand * x
    TRANSPOSED = 2  # weight * row operand
    UPDATE = 3  # gradient * mantissa (on the x bus)


class LaneControl(data.Struct):
    """Held by the array for all lanes; stage numbers count from the sweep engine's address."""

    mode: Mode
    first: 1  # stage 3: start a new sum
    load: 1  # stage 4: sums to the drain registers
    shift: 1  # drain registers move one lane down
    outer: 1  # stage 5: write the accumulated gradient
    check: 1  # stage 1: look at the gradient's leading bits
    decay: 1  # stage 5: write the decayed gradient
    apply: 1  # stage 7: write the updated master
    coarse: 2


class RowWrite(data.Struct):
    """Write of one row operand, broadcast to all lanes; each compares ``lane``."""

    enable: 1
    lane: 8
    slot: 1


class Lane(wiring.Component):
    """See `LaneControl` for the stages.

    Members
    -------
    w_addr, g_addr, t_addr : read addresses (stage 0; the array delays those used later); t_addr's top bit picks the
        scaled operands
    gw_addr : gradient write address, stage 5; ww_addr : master write address, stage 7
    x_a, x_b : stage 1
    pa, pb : products, stage 3
    drain_a, drain_b : registered sums; previous_* those of the next lane
    row_t, row_s : writes of operands and of scaled operands
    host_* : access while idle
    """

    def __init__(self, hw: Hardware, index: int):
        self.hw, self.index = hw, index
        w, depth = hw.width, (hw.depths.weights - 1).bit_length()
        tile = (hw.depths.tiles - 1).bit_length()
        self.tile_bits = tile
        word, acc = signed(w), signed(hw.accumulator)
        super().__init__({
            "control": In(LaneControl),
            "w_addr": In(depth), "w_en": In(1), "g_addr": In(depth), "g_en": In(1), "t_addr": In(tile + 1),
            "gw_addr": In(depth), "ww_addr": In(depth),
            "x_a": In(word), "x_b": In(word), "pa": Out(signed(2 * w)), "pb": Out(signed(2 * w)),
            "drain_a": Out(acc), "drain_b": Out(acc), "previous_a": In(acc), "previous_b": In(acc),
            "row_t": In(RowWrite), "row_s": In(RowWrite), "row_tile_t": In(tile), "row_tile_s": In(tile),
            "row_data_t": In(word), "row_data_s": In(word),
            "alarm": Out(1), "large": Out(1), "clipped": Out(1),
            "host_w_en": In(1), "host_g_en": In(1), "host_data": In(2 * w),
            "w_data": Out(2 * w), "g_data": Out(arith.gradient_width(w)),
        })

    def elaborate(self, platform):
        m = Module()
        w, c = self.hw.width, self.control
        rows = [self._row_memory(m, slot) for slot in range(2)]
        m.submodules.weights = weights = Bank(width=2 * w, depth=self.hw.depths.weights)
        m.d.comb += [
            weights.r_addr.eq(self.w_addr), weights.r_en.eq(self.w_en), self.w_data.eq(weights.r_data),
            weights.w_addr.eq(self.ww_addr),
        ]
        swept = weights.r_data[w:].as_signed()
        left = [Signal(signed(w), name=f"left_{s}", reset_less=True) for s in "ab"]
        right = [Signal(signed(w), name=f"right_{s}", reset_less=True) for s in "ab"]
        x = (self.x_a, self.x_b)
        with m.If((c.mode == Mode.FORWARD) | (c.mode == Mode.TRANSPOSED)):
            m.d.sync += [left[s].eq(swept) for s in range(2)]
        with m.Else():
            m.d.sync += [left[s].eq(rows[s]) for s in range(2)]
        for s in range(2):
            m.d.sync += right[s].eq(Mux(c.mode == Mode.TRANSPOSED, rows[s], x[s]))
        m.d.sync += [self.pa.eq(left[0] * right[0]), self.pb.eq(left[1] * right[1])]
        self._sums(m)
        if self.hw.learn:
            self._gradient(m, weights, left)
        else:
            m.d.comb += [weights.w_en.eq(self.host_w_en), weights.w_data.eq(self.host_data)]
        return m

    def _row_memory(self, m: Module, slot: int):
        """Operands of this lane's rows: t below, the scaled ts above. Both may be written, not in the same cycle."""
        m.submodules[f"rows_{slot}"] = bank = Bank(width=self.hw.width, depth=2 << self.tile_bits)
        t = self.row_t.enable & (self.row_t.lane == self.index) & (self.row_t.slot == slot)
        s = self.row_s.enable & (self.row_s.lane == self.index) & (self.row_s.slot == slot)
        m.d.comb += [
            bank.r_addr.eq(self.t_addr), bank.r_en.eq(1), bank.w_en.eq(t | s),
            bank.w_addr.eq(Mux(s, self.row_tile_s | 1 << self.tile_bits, self.row_tile_t)),
            bank.w_data.eq(Mux(s, self.row_data_s, self.row_data_t)),
        ]
        return bank.r_data.as_signed()

    def _sums(self, m: Module) -> None:
        """Forward sums and their way out: copied to the drain registers, then shifted down the lanes."""
        c = self.control
        for product, drain, previous, name in ((self.pa, self.drain_a, self.previous_a, "a"),
                                               (self.pb, self.drain_b, self.previous_b, "b")):
            acc = Signal.like(drain, name=f"acc_{name}", reset_less=True)
            m.d.sync += acc.eq(Mux(c.first, 0, acc) + product)
            with m.If(c.load):
                m.d.sync += drain.eq(acc)
            with m.Elif(c.shift):
                m.d.sync += drain.eq(previous)

    def _gradient(self, m: Module, weights: Bank, left: list) -> None:
        """Accumulation of the contrast, and the update in the same two multipliers."""
        w, c, bits = self.hw.width, self.control, arith.gradient_width(self.hw.width)
        m.submodules.gradients = gradients = Bank(width=bits, depth=self.hw.depths.weights)
        m.submodules.tail = tail = UpdateTail(width=w)
        word = gradients.r_data
        with m.If(c.mode == Mode.UPDATE):
            m.d.sync += [left[0].eq(word[w - 1:]), left[1].eq(word[:w - 1])]
        contrast, total = Signal(signed(2 * w + 1), reset_less=True), Signal(bits, reset_less=True)
        m.d.sync += [contrast.eq(self.pa - self.pb), total.eq((word.as_signed() + contrast)[:bits])]
        m.d.comb += [
            gradients.r_addr.eq(self.g_addr), gradients.r_en.eq(self.g_en), self.g_data.eq(word),
            gradients.w_addr.eq(self.gw_addr),
            gradients.w_en.eq(c.outer | c.decay | self.host_g_en),
            gradients.w_data.eq(Mux(c.decay, tail.change[:bits], Mux(c.outer, total, self.host_data[:bits]))),
            tail.high.eq(self.pa), tail.low.eq(self.pb), tail.coarse.eq(c.coarse), tail.word.eq(weights.r_data),
            self.alarm.eq(c.check & arith.crowded(word, bits, 1)),
            self.large.eq(c.check & arith.crowded(word, bits, LARGE_BITS)),
            self.clipped.eq(c.apply & tail.clipped),
            weights.w_en.eq(c.apply | self.host_w_en),
            weights.w_data.eq(Mux(c.apply, tail.master, self.host_data)),
        ]
