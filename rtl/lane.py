"""One lane: a weight bank, a gradient bank, two multipliers (slots a and b) and the operands of its rows."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.registers import LARGE_BITS
from echolith.compiler.timing import fetched, worded
from echolith.rtl.accumulator import accumulator
from echolith.rtl.memory import Bank, make_bank, weight_bank
from echolith.rtl.multiplier import multiplier
from echolith.rtl.pipeline import delay
from echolith.rtl.update import UpdateTail
from echolith.sim import arith

__all__ = ["Lane", "LaneControl", "Mode", "row_write"]


class Mode(enum.Enum, shape=2):
    """What the multipliers work on: bit 0 is set if it is no weight, bit 1 then if it is a gradient."""

    FORWARD = 0  # weight * x
    OUTER = 1  # row operand * x
    TRANSPOSED = 2  # weight * row operand
    UPDATE = 3  # gradient * mantissa (on the x bus)


class LaneControl(data.Struct):
    """For all lanes; stages count from the sweep engine's address, F is `timing.fetched`."""

    mode: Mode  # F
    first: 1  # F + 2: start a new sum
    load: 1  # F + 3: sums to the drain registers
    shift: 1  # the next lane's take their place
    outer: 1  # F + 4: write the accumulated gradient
    check: 1  # F: look at the gradient's leading bits
    decay: 1  # F + 5, and `timing.worded`: write the decayed gradient
    apply: 1  # F + 7, and that: write the updated master
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
    w_addr, g_addr : read addresses, stage 0 (the array delays those used later)
    t_addr : row operand, stage F - 1; its top bit picks the scaled ones
    gw_addr, ww_addr : gradient and master write addresses, with their enables
    x_a, x_b : stage F; the mantissa of an UPDATE stays
    pa, pb : products, stage F + 2
    drain_a, drain_b, next_a, next_b : registered sums on their way out, and those of the next lane
    row_a, row_b : writes of operands
    filled : this lane has a row of the block whose gradient is accumulated, beside `LaneControl.outer`;
        `Hardware.paired` only: else all lanes' operands are written
    alarm, large, clipped : a cycle behind `LaneControl.check` and ``apply``
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
            "drain_a": Out(acc), "drain_b": Out(acc), "next_a": In(acc), "next_b": In(acc),
            "row_a": In(row_write(hw)), "row_b": In(row_write(hw)),
            **({"filled": In(1)} if hw.paired and hw.learn else {}),
            "alarm": Out(1), "large": Out(1), "clipped": Out(1),
            "host_w_en": In(1), "host_g_en": In(1), "host_data": In(2 * w),
            "w_data": Out(2 * w), "g_data": Out(arith.gradient_width(w)),
        })

    def elaborate(self, platform):
        m = Module()
        w, c, late = self.hw.width, self.control, fetched(self.hw)
        rows = [self._row_memory(m, slot, write) for slot, write in enumerate((self.row_a, self.row_b))]
        m.submodules.weights = weights = weight_bank(platform, latency=late, width=2 * w, depth=self.hw.depths.weights)
        m.d.comb += [
            weights.r_addr.eq(self.w_addr), self.w_data.eq(weights.r_data),
            # Where there may be one port for both, an update reads and writes in turn.
            weights.r_en.eq(1 if late > 1 else ~weights.w_en), weights.w_addr.eq(self.ww_addr),
        ]
        swept = weights.r_data[w:].as_signed()
        # Cells of their own for what is no weight: weights have the longest way and pass one cell then.
        left = [Signal(signed(w), name=f"left_{s}", attrs={"keep": 1}) for s in "ab"]
        m.d.comb += [left[s].eq(rows[s]) for s in range(2)]
        other = c.mode.as_value()[0]
        for s, (x, out) in enumerate(((self.x_a, self.pa), (self.x_b, self.pb))):
            m.submodules[f"multiply_{s}"] = cell = multiplier(platform, width=w)
            m.d.comb += [cell.a.eq(Mux(other, left[s], swept)), out.eq(cell.p),
                         cell.b.eq(Mux(c.mode == Mode.TRANSPOSED, rows[s], x))]
        self._sums(m, platform)
        if self.hw.learn:
            self._gradient(m, platform, weights, left)
        else:
            held, enable = Signal(2 * w, reset_less=True), Signal()
            m.d.sync += [held.eq(self.host_data), enable.eq(self.host_w_en)]
            m.d.comb += [weights.w_en.eq(enable), weights.w_data.eq(held)]
        return m

    def _row_memory(self, m: Module, slot: int, write):
        """Operands of this lane's rows: t below, the scaled ts above."""
        m.submodules[f"rows_{slot}"] = words = Bank(width=self.hw.width, depth=2 << self.tile_bits)
        mine, word = write.lane == self.index, write.data
        if self.hw.general and self.index:
            mine, word = mine | write.fill, Mux(write.fill, 0, word)
        m.d.comb += [
            words.r_addr.eq(self.t_addr), words.r_en.eq(1), words.w_en.eq(write.enable & mine),
            words.w_addr.eq(write.tile | write.scaled << self.tile_bits), words.w_data.eq(word),
        ]
        return words.r_data.as_signed()

    def _sums(self, m: Module, platform) -> None:
        """Forward sums and their way out: copied to the drain registers, which shift."""
        c = self.control
        for product, drain, following, name in ((self.pa, self.drain_a, self.next_a, "a"),
                                                (self.pb, self.drain_b, self.next_b, "b")):
            m.submodules[f"sum_{name}"] = acc = accumulator(platform, bits=len(product), width=len(drain))
            m.d.comb += [acc.value.eq(product), acc.first.eq(c.first)]
            with m.If(c.load | c.shift):
                m.d.sync += drain.eq(Mux(c.load, acc.total, following))

    def _gradient(self, m: Module, platform, weights, left: list) -> None:
        """Accumulation of the contrast, and the update in the same two multipliers."""
        w, c, bits = self.hw.width, self.control, arith.gradient_width(self.hw.width)
        m.submodules.gradients = gradients = make_bank(platform, latency=fetched(self.hw), width=bits,
                                                  depth=self.hw.depths.weights)
        m.submodules.tail = tail = UpdateTail(width=w)
        word = gradients.r_data
        factor = delay(m, word, worded(self.hw), "factor")
        with m.If(c.mode.as_value()[1]):
            m.d.comb += [left[0].eq(factor[w - 1:]), left[1].eq(factor[:w - 1])]
        filled = self.filled if self.hw.paired else 1
        contrast, total = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
        host_w, host_g = Signal(), Signal()
        m.d.sync += [contrast.eq((self.pa - self.pb)[:bits]), total.eq((word + contrast)[:bits]),
                     host_w.eq(self.host_w_en), host_g.eq(self.host_g_en)]
        m.d.comb += [
            gradients.r_addr.eq(self.g_addr), gradients.r_en.eq(1), self.g_data.eq(word),
            gradients.w_addr.eq(self.gw_addr), gradients.w_en.eq((c.outer & filled) | c.decay | host_g),
            gradients.w_data.eq(Mux(c.outer, total, tail.change[:bits])),
            tail.high.eq(self.pa), tail.low.eq(self.pb), tail.coarse.eq(c.coarse), tail.word.eq(weights.r_data),
            tail.host.eq(c.idle), tail.host_data.eq(self.host_data),
            self.alarm.eq(delay(m, c.check & arith.crowded(word, bits, 1), 1, "alarm")),
            self.large.eq(delay(m, c.check & arith.crowded(word, bits, LARGE_BITS), 1, "large")),
            self.clipped.eq(delay(m, c.apply & tail.clipped, 1, "clipped")),
            weights.w_en.eq(c.apply | host_w), weights.w_data.eq(tail.master),
        ]
