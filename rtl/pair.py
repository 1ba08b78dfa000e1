"""Two lanes that share their multipliers: of packed products each makes two, in every sweep but OUTER and UPDATE."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.registers import LARGE_BITS
from echolith.compiler.timing import fetched
from echolith.rtl.accumulator import accumulator
from echolith.rtl.lane import Mode, row_write
from echolith.rtl.memory import Bank, make_bank, weight_bank
from echolith.rtl.multiplier import multiplier
from echolith.rtl.pipeline import delay
from echolith.rtl.update import UpdateTail
from echolith.sim import arith

__all__ = ["Pair", "PairControl"]


class PairControl(data.Struct):
    """For all pairs; stages count from the sweep engine's address, O is `timing.operands`. Of two bits the upper one is
    the odd lane's."""

    mode: Mode  # O
    odd: 1  # O: the odd lane's turn; TRANSPOSED, OUTER, UPDATE
    first: 1  # O + 3: start a new sum
    load: 1  # O + 4: sums to the drain registers
    shift: 1  # the next lane's take their place
    odd_word: 1  # O + 3: the gradient that is added to
    odd_master: 1  # O + 5
    outer: 2  # O + 4: write the accumulated gradient
    check: 1  # O: look at both gradients' leading bits
    decay: 2  # O + 5: write the decayed gradient
    apply: 2  # O + 7: write the updated master
    idle: 1  # the host's words pass the update tail
    coarse: 2


class Pair(wiring.Component):
    """Lanes 2 * index and 2 * index + 1; see `PairControl` for the stages.

    FORWARD: both lanes' weights times x. TRANSPOSED: elements come in twos, neighbouring columns of one tile; the first
    one's cycle makes both columns' products of the even lane, the second one's those of the odd lane. OUTER and UPDATE
    do the even lane in an element's first cycle, the odd one in its second.

    Members
    -------
    w_addr, g_addr, t_addr, gw_addr, ww_addr : as of a `Lane`; t_addr in stage O - 1
    x_a, x_b : stage O; of FORWARD a factor, sign-extended
    high_a, high_b, low_a, low_b : products, stage O + 3; of TRANSPOSED the first and the second column's
    drain_a, drain_b, next_a, next_b : registered sums on their way out, even lane first, and those of the next pair;
        without the bits that are `Hardware.dropped`
    row_a, row_b : writes of operands, those of TRANSPOSED rounded
    filled, alarm, large, clipped, host_* : as of a `Lane`; two bits of enables
    words : masters and gradients of both lanes, even lane first
    """

    def __init__(self, hw: Hardware, index: int):
        assert hw.packed is not None
        self.hw, self.packed, self.index = hw, hw.packed, index
        w, depth = hw.width, (hw.depths.weights - 1).bit_length()
        self.tile_bits = (hw.depths.tiles - 1).bit_length() + hw.overlap
        word, acc, part = signed(w), signed(hw.accumulator - hw.dropped), signed(self.packed.shift)
        super().__init__({
            "control": In(PairControl),
            "w_addr": In(depth), "g_addr": In(depth), "t_addr": In(self.tile_bits + 1),
            "gw_addr": In(depth), "ww_addr": In(depth), "x_a": In(word), "x_b": In(word),
            "high_a": Out(part), "high_b": Out(part), "low_a": Out(part), "low_b": Out(part),
            "drain_a": Out(acc), "drain_b": Out(acc), "next_a": In(acc), "next_b": In(acc),
            "row_a": In(row_write(hw)), "row_b": In(row_write(hw)),
            **({"filled": In(2)} if hw.paired and hw.learn else {}),
            "alarm": Out(1), "large": Out(1), "clipped": Out(1),
            "host_w_en": In(2), "host_g_en": In(2), "host_data": In(2 * w),
            "words": Out(2 * (2 * w + arith.gradient_width(w))),
        })

    def elaborate(self, platform):
        m = Module()
        self._weights = [weight_bank(platform, latency=fetched(self.hw), width=2 * self.hw.width,
                                     depth=self.hw.depths.weights) for _ in range(2)]
        m.submodules.weights_even, m.submodules.weights_odd = self._weights
        for bank in self._weights:
            m.d.comb += [bank.r_addr.eq(self.w_addr), bank.r_en.eq(1), bank.w_addr.eq(self.ww_addr)]
        rows = [[self._row_memory(m, slot, lane, write) for lane in range(2)]
                for slot, write in enumerate((self.row_a, self.row_b))]
        halves = [0, 0]
        if self.hw.learn:
            halves = self._gradients(m, platform)
        self._multiply(m, platform, self._packed(m), rows, halves)
        self._sums(m, platform)
        if self.hw.learn:
            self._update(m)
        else:
            held, enable = Signal(2 * self.hw.width, reset_less=True), Signal(2)
            m.d.sync += [held.eq(self.host_data), enable.eq(self.host_w_en)]
            for lane, bank in enumerate(self._weights):
                m.d.comb += [bank.w_en.eq(enable[lane]), bank.w_data.eq(held)]
            none = Const(0, arith.gradient_width(self.hw.width))
            m.d.comb += self.words.eq(Cat(Cat(bank.r_data, none) for bank in self._weights))
        return m

    def _row_memory(self, m: Module, slot: int, lane: int, write):
        """Operands of one lane's rows: t below, the scaled ts above."""
        m.submodules[f"rows_{slot}_{lane}"] = words = Bank(width=self.hw.width, depth=2 << self.tile_bits)
        m.d.comb += [
            words.r_addr.eq(self.t_addr), words.r_en.eq(1),
            words.w_addr.eq(write.tile | write.scaled << self.tile_bits),
            words.w_en.eq(write.enable & (write.lane == 2 * self.index + lane)), words.w_data.eq(write.data),
        ]
        return words.r_data.as_signed()

    def _packed(self, m: Module):
        """Two weights as one operand, stage O."""
        bits, c = self.packed.weight, self.control
        even, odd = ([arith.packed_weight(bank.r_data.as_signed(), len(bank.r_data), bits)] for bank in self._weights)
        for stages, name in ((even, "even"), (odd, "odd")):
            for stage in range(1, 4):
                register = Signal(signed(bits), name=f"{name}_{stage}", reset_less=True)
                m.d.sync += register.eq(stages[-1])
                stages.append(register)
        # Behind two registers is this element's weight; before them the next one's, behind them the last one's.
        across = c.mode == Mode.FORWARD
        high = Mux(~across & c.odd, odd[3], even[2])
        low = Mux(across | c.odd, odd[2], even[1])
        return _two(high.as_signed(), low.as_signed(), self.packed.shift)

    def _multiply(self, m: Module, platform, packed, rows, halves) -> None:
        """Products, taken apart; ``halves`` are the gradient's of an update."""
        c, w, shift = self.control, self.hw.width, self.packed.shift
        self._products = []
        ports = (self.x_a, self.high_a, self.low_a), (self.x_b, self.high_b, self.low_b)
        for slot, (x, high, low) in enumerate(ports):
            row, left = Signal(signed(w), name=f"row_{slot}"), Signal(signed(w), name=f"left_{slot}")
            m.d.comb += row.eq(Mux(c.odd, rows[slot][1], rows[slot][0]))
            with m.Switch(c.mode):
                with m.Case(Mode.FORWARD, Mode.TRANSPOSED):
                    m.d.comb += left.eq(packed)
                with m.Case(Mode.OUTER):
                    m.d.comb += left.eq(row)
                with m.Default():
                    m.d.comb += left.eq(halves[slot])
            m.submodules[f"multiply_{slot}"] = cell = multiplier(platform, width=w)
            p = cell.p
            m.d.comb += [cell.a.eq(left), cell.b.eq(Mux(c.mode == Mode.TRANSPOSED, row >> w - self.packed.operand, x))]
            m.d.sync += [low.eq(p[:shift]), high.eq((p >> shift) + p[shift - 1])]
            self._products.append(p)

    def _sums(self, m: Module, platform) -> None:
        """Forward sums and their way out: copied to the drain registers, which shift."""
        c = self.control
        for slot, (high, low, drain, following) in {"a": (self.high_a, self.low_a, self.drain_a, self.next_a),
                                                    "b": (self.high_b, self.low_b, self.drain_b, self.next_b)}.items():
            odd = Signal.like(drain, name=f"odd_{slot}")
            for lane, product, register, after in (("even", high, drain, odd), ("odd", low, odd, following)):
                m.submodules[f"sum_{slot}_{lane}"] = acc = accumulator(platform, bits=len(product), width=len(drain))
                m.d.comb += [acc.value.eq(product), acc.first.eq(c.first)]
                with m.If(c.load | c.shift):
                    m.d.sync += register.eq(Mux(c.load, acc.total, after))

    def _gradients(self, m: Module, platform) -> list:
        """The banks; halves of the word whose turn it is."""
        w, bits = self.hw.width, arith.gradient_width(self.hw.width)
        self._banks = [make_bank(platform, latency=fetched(self.hw), width=bits, depth=self.hw.depths.weights)
                       for _ in range(2)]
        m.submodules.gradients_even, m.submodules.gradients_odd = self._banks
        for bank in self._banks:
            m.d.comb += [bank.r_addr.eq(self.g_addr), bank.r_en.eq(1), bank.w_addr.eq(self.gw_addr)]
        word = Mux(self.control.odd, self._banks[1].r_data, self._banks[0].r_data)
        return [word[w - 1:].as_signed(), word[:w - 1]]

    def _update(self, m: Module) -> None:
        """Accumulation of the contrast, and the update, in the same two multipliers."""
        w, c, bits = self.hw.width, self.control, arith.gradient_width(self.hw.width)
        m.submodules.tail = tail = UpdateTail(width=w)
        contrast, total = Signal(bits, reset_less=True), Signal(bits, reset_less=True)
        filled = self.filled if self.hw.paired else Const(3)
        host_w, host_g, (pa, pb) = Signal(2), Signal(2), self._products
        words, masters = ([bank.r_data for bank in banks] for banks in (self._banks, self._weights))
        m.d.sync += [
            contrast.eq((pa - pb)[:bits]), total.eq((Mux(c.odd_word, words[1], words[0]) + contrast)[:bits]),
            host_w.eq(self.host_w_en), host_g.eq(self.host_g_en),
        ]
        for lane, (bank, weights) in enumerate(zip(self._banks, self._weights, strict=True)):
            m.d.comb += [
                bank.w_en.eq((c.outer[lane] & filled[lane]) | c.decay[lane] | host_g[lane]),
                bank.w_data.eq(Mux(c.outer.any(), total, tail.change[:bits])),
                weights.w_en.eq(c.apply[lane] | host_w[lane]), weights.w_data.eq(tail.master),
            ]
        crowded = [[arith.crowded(word, bits, free) for word in words] for free in (1, LARGE_BITS)]
        m.d.comb += [
            tail.high.eq(pa), tail.low.eq(pb), tail.coarse.eq(c.coarse),
            tail.word.eq(Mux(c.odd_master, masters[1], masters[0])),
            tail.host.eq(c.idle), tail.host_data.eq(self.host_data),
            self.alarm.eq(delay(m, c.check & Cat(crowded[0]).any(), 1, "alarm")),
            self.large.eq(delay(m, c.check & Cat(crowded[1]).any(), 1, "large")),
            self.clipped.eq(delay(m, c.apply.any() & tail.clipped, 1, "clipped")),
            self.words.eq(Cat(Cat(master, word) for master, word in zip(masters, words, strict=True))),
        ]


def _two(high, low, shift: int):
    """high * 2^shift + low."""
    negative = low[-1]
    return Cat(low, negative.replicate(shift - len(low)), (high - negative)[:len(high)]).as_signed()
