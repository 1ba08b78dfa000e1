"""One lane: a weight bank, a gradient bank, two multipliers (slots a and b) and the operands of its rows."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.registers import LARGE_BITS
from echolith.rtl.memory import Bank, weight_bank
from echolith.rtl.update import UpdateTail
from echolith.sim import arith

__all__ = ["Lane", "LaneControl", "Mode", "row_write"]


class Mode(enum.Enum, shape=2):
    """What the multipliers work on."""

    FORWARD = 0  # weight * x
    OUTER = 1  # row operand * x
    TRANSPOSED = 2  # weight * row operand
    UPDATE = 3  # gradient * mantissa (on the x bus)


class LaneControl(data.Struct):
    """Held by the array for all lanes; stage numbers count from the sweep engine's address."""

    mode: Mode  # stage 1
    first: 1  # stage 3: start a new sum
    load: 1  # stage 4: sums to the drain registers
    outer: 1  # stage 5: write the accumulated gradient
    check: 1  # stage 1: look at the gradient's leading bits
    decay: 1  # stage 5: write the decayed gradient
    apply: 1  # stage 7: write the updated master
    idle: 1  # the host's words pass the update tail
    coarse: 2


def row_write(hw: Hardware) -> data.StructLayout:
    """Write of one row operand of one slot, broadcast to all lanes; each compares ``lane``.

    In general hardware ``fill`` comes with lane 0: the other lanes write zero, so that a last tile which is filled in
    part reads as zero in the rest."""
    return data.StructLayout({
        "enable": 1, "scaled": 1, "lane": max(1, (hw.lanes - 1).bit_length()),
        "tile": (hw.depths.tiles - 1).bit_length() + hw.overlap, "data": signed(hw.width),
        **({"fill": 1} if hw.general else {}),
    })


class Lane(wiring.Component):
    """See `LaneControl` for the stages.

    Members
    -------
    w_addr, g_addr, t_addr : read addresses (stage 0; the array delays those used later); t_addr's top bit picks the
        scaled operands
    gw_addr : gradient write address, stage 5; ww_addr : master write address, stage 7
    x_a, x_b : stage 1
    pa, pb : products, stage 3
    drain, previous : registered sums on their way out, slot a before slot b; previous is that of the next lane
    row_a, row_b : writes of operands
    host_* : access while idle; a write happens one cycle after its enable, at the write address of that cycle
    """

    def __init__(self, hw: Hardware, index: int):
        self.hw, self.index = hw, index
        w, depth = hw.width, (hw.depths.weights - 1).bit_length()
        self.tile_bits = (hw.depths.tiles - 1).bit_length() + hw.overlap  # the region on top
        word, acc = signed(w), signed(hw.accumulator)
        super().__init__({
            "control": In(LaneControl),
            "w_addr": In(depth), "g_addr": In(depth), "t_addr": In(self.tile_bits + 1),
            "gw_addr": In(depth), "ww_addr": In(depth),
            "x_a": In(word), "x_b": In(word), "pa": Out(signed(2 * w)), "pb": Out(signed(2 * w)),
            "drain": Out(acc), "previous": In(acc),
            "row_a": In(row_write(hw)), "row_b": In(row_write(hw)),
            "alarm": Out(1), "large": Out(1), "clipped": Out(1),
            "host_w_en": In(1), "host_g_en": In(1), "host_data": In(2 * w),
            "w_data": Out(2 * w), "g_data": Out(arith.gradient_width(w)),
        })

    def elaborate(self, platform):
        m = Module()
        w, c = self.hw.width, self.control
        rows = [self._row_memory(m, slot, write) for slot, write in enumerate((self.row_a, self.row_b))]
        m.submodules.weights = weights = weight_bank(platform, width=2 * w, depth=self.hw.depths.weights)
        m.d.comb += [
            weights.r_addr.eq(self.w_addr), weights.r_en.eq(~weights.w_en), self.w_data.eq(weights.r_data),
            weights.w_addr.eq(self.ww_addr),
        ]
        swept = weights.r_data[w:].as_signed()
        left = [Signal(signed(w), name=f"left_{s}", reset_less=True) for s in "ab"]
        right = [Signal(signed(w), name=f"right_{s}", reset_less=True) for s in "ab"]
        # Without reset, so that operand and product registers may move into the multiplier.
        products = [Signal(signed(2 * w), name=f"product_{s}", reset_less=True) for s in "ab"]
        x = (self.x_a, self.x_b)
        with m.If((c.mode == Mode.FORWARD) | (c.mode == Mode.TRANSPOSED)):
            m.d.sync += [left[s].eq(swept) for s in range(2)]
        with m.Else():
            m.d.sync += [left[s].eq(rows[s]) for s in range(2)]
        for s in range(2):
            m.d.sync += [right[s].eq(Mux(c.mode == Mode.TRANSPOSED, rows[s], x[s])),
                         products[s].eq(left[s] * right[s])]
        m.d.comb += [self.pa.eq(products[0]), self.pb.eq(products[1])]
        self._sums(m)
        if self.hw.learn:
            self._gradient(m, weights, left)
        else:
            held, enable = Signal(2 * w, reset_less=True), Signal()
            m.d.sync += [held.eq(self.host_data), enable.eq(self.host_w_en)]
            m.d.comb += [weights.w_en.eq(enable), weights.w_data.eq(held)]
        return m

    def _row_memory(self, m: Module, slot: int, write):
        """Operands of this lane's rows: t below, the scaled ts above."""
        m.submodules[f"rows_{slot}"] = bank = Bank(width=self.hw.width, depth=2 << self.tile_bits)
        mine, word = write.lane == self.index, write.data
        if self.hw.general and self.index:
            mine, word = mine | write.fill, Mux(write.fill, 0, word)
        m.d.comb += [
            bank.r_addr.eq(self.t_addr), bank.r_en.eq(1), bank.w_en.eq(write.enable & mine),
            bank.w_addr.eq(write.tile | write.scaled << self.tile_bits), bank.w_data.eq(word),
        ]
        return bank.r_data.as_signed()

    def _sums(self, m: Module) -> None:
        """Forward sums and their way out: copied to the drain registers, which shift all the time."""
        c = self.control
        after = Signal.like(self.drain)
        for product, drain, previous, name in ((self.pa, self.drain, after, "a"), (self.pb, after, self.previous, "b")):
            acc = Signal.like(drain, name=f"acc_{name}", reset_less=True)
            # The adder runs for a first product too: choosing behind it, not before it, fits its own logic cells.
            m.d.sync += [acc.eq(Mux(c.first, product, acc + product)), drain.eq(Mux(c.load, acc, previous))]

    def _gradient(self, m: Module, weights, left: list) -> None:
        """Accumulation of the contrast, and the update in the same two multipliers."""
        w, c, bits = self.hw.width, self.control, arith.gradient_width(self.hw.width)
        m.submodules.gradients = gradients = Bank(width=bits, depth=self.hw.depths.weights)
        m.submodules.tail = tail = UpdateTail(width=w)
        word = gradients.r_data
        with m.If(c.mode == Mode.UPDATE):
            m.d.sync += [left[0].eq(word[w - 1:]), left[1].eq(word[:w - 1])]
        contrast, total = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
        host_w, host_g = Signal(), Signal()
        m.d.sync += [contrast.eq((self.pa - self.pb)[:bits]), total.eq((word + contrast)[:bits]),
                     host_w.eq(self.host_w_en), host_g.eq(self.host_g_en)]
        m.d.comb += [
            gradients.r_addr.eq(self.g_addr), gradients.r_en.eq(1), self.g_data.eq(word),
            gradients.w_addr.eq(self.gw_addr), gradients.w_en.eq(c.outer | c.decay | host_g),
            gradients.w_data.eq(Mux(c.outer, total, tail.change[:bits])),
            tail.high.eq(self.pa), tail.low.eq(self.pb), tail.coarse.eq(c.coarse), tail.word.eq(weights.r_data),
            tail.host.eq(c.idle), tail.host_data.eq(self.host_data),
            self.alarm.eq(c.check & arith.crowded(word, bits, 1)),
            self.large.eq(c.check & arith.crowded(word, bits, LARGE_BITS)),
            self.clipped.eq(c.apply & tail.clipped),
            weights.w_en.eq(c.apply | host_w), weights.w_data.eq(tail.master),
        ]
