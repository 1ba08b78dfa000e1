"""One vector parameter of the neuron unit: its words, its gradient, its update."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.isa import UpdateMode
from echolith.compiler.registers import LARGE_BITS
from echolith.rtl.memory import Bank
from echolith.rtl.multiplier import multiplier
from echolith.rtl.pipeline import delay
from echolith.rtl.scale import EXPONENT_BITS
from echolith.rtl.update import UpdateTail
from echolith.sim import arith

__all__ = ["VectorBank"]


class VectorBank(wiring.Component):
    """``shared`` keeps a single word for all units.

    Members
    -------
    addr, k : In, Out
        The word of a unit, one cycle later; held while ``r_en`` is low.
    g, g_valid, g_slot, g_unit, exponent : In
        Contributions, slot a before slot b; their difference is accumulated, scaled by 2^-exponent.
    g_add : In
        Their sum instead; only with ``Hardware.adding``.
    update_valid, update, mantissa, coarse : In
        Update sweep over ``update_addr``, every second cycle; ``update`` is the `isa.UpdateMode`.
    alarm, large, clipped : Out
    host_* : access while ``host``; a write happens one cycle after its enable; ``host_data`` is zero otherwise
    """

    def __init__(self, hw: Hardware, shared: bool):
        self.hw, self.shared = hw, shared
        self.bits = bits = (hw.depths.units - 1).bit_length()
        w, g = hw.width, arith.gradient_width(hw.width)
        super().__init__({
            "addr": In(bits), "r_en": In(1), "k": Out(signed(w)),
            "g": In(signed(2 * w - 1)), "g_valid": In(1), "g_slot": In(1), "g_unit": In(bits),
            "exponent": In(EXPONENT_BITS), **({"g_add": In(1)} if hw.adding else {}),
            "update_valid": In(1), "update": In(2), "update_addr": In(bits), "mantissa": In(signed(w)),
            "coarse": In(2), "alarm": Out(1), "large": Out(1), "clipped": Out(1),
            "host": In(1), "host_addr": In(bits), "host_w_en": In(1), "host_g_en": In(1), "host_data": In(2 * w),
            "host_w_data": Out(2 * w), "host_g_data": Out(g),
        })

    def elaborate(self, platform):
        m = Module()
        w, depth = self.hw.width, 2 if self.shared else 1 << self.bits
        m.submodules.words = words = Bank(width=2 * w, depth=depth)
        updates = [self.update_valid]
        addresses = [self._place(self.update_addr)]
        for stage in range(8):
            updates.append(delay(m, updates[-1], 1, f"update_{stage}"))
            last = Mux(self.host, self._place(self.host_addr), addresses[-1]) if stage in (5, 7) else addresses[-1]
            addresses.append(delay(m, last, 1, f"address_{stage}"))
        busy, updated = Signal(), addresses[5]
        m.d.comb += busy.eq(updates[5])
        if self.hw.shrinks:  # the word is a factor too; it comes in the cycles between
            m.d.comb += busy.eq(updates[5] | updates[0])
            updated = Mux(updates[0], addresses[0], updated)
        m.d.comb += [
            words.r_addr.eq(Mux(self.host, self._place(self.host_addr),
                                Mux(busy, updated, self._place(self.addr)))),
            words.r_en.eq(self.r_en | busy | self.host), self.k.eq(words.r_data[w:].as_signed()),
            self.host_w_data.eq(words.r_data),
            words.w_addr.eq(addresses[8]),
        ]
        if self.hw.learn:
            self._learn(m, platform, words, updates, addresses)
        else:
            m.d.comb += [words.w_en.eq(delay(m, self.host_w_en, 1)), words.w_data.eq(delay(m, self.host_data, 1))]
        return m

    def _place(self, unit):
        return 0 * unit if self.shared else unit

    def _learn(self, m: Module, platform, words: Bank, updates: list, addresses: list) -> None:
        w, bits = self.hw.width, arith.gradient_width(self.hw.width)
        m.submodules.gradients = bank = Bank(width=bits, depth=words.depth)
        m.submodules.tail = tail = UpdateTail(width=w)
        scaled, first = Signal(signed(2 * w)), Signal(signed(2 * w))
        at = delay(m, self.g_valid & self.g_slot, 1, "scaled_b"), delay(m, self._place(self.g_unit), 1, "scaled_unit")
        m.d.sync += [scaled.eq(arith.shr(self.g, self.exponent)), first.eq(scaled)]
        contrast, add = Signal(signed(2 * w + 1)), delay(m, at[0], 2, "add")
        place = delay(m, at[1], 1, "place")
        if self.hw.adding:
            m.d.sync += contrast.eq(Mux(delay(m, self.g_add, 1, "scaled_add"), first + scaled, first - scaled))
        else:
            m.d.sync += contrast.eq(first - scaled)
        adding, held = delay(m, at[0], 1, "adding"), delay(m, contrast, 1, "contrast")
        late = delay(m, place, 1, "late")
        word = bank.r_data
        high, low, applied = word[w - 1:], word[:w - 1], self.update == UpdateMode.APPLY
        if self.hw.shrinks:
            shrink = self.update == UpdateMode.SHRINK
            high, low, applied = Mux(shrink, 0, high), Mux(shrink, self.k, low), applied | shrink
        for part, half in ((tail.high, high), (tail.low, low)):
            m.submodules += (cell := multiplier(platform, width=w))
            m.d.comb += [cell.a.eq(half), cell.b.eq(self.mantissa), part.eq(cell.p)]
        decay, apply = updates[6] & (self.update == 2), updates[8] & applied
        host_w, host_g = delay(m, self.host_w_en, 1, "host_w"), delay(m, self.host_g_en, 1, "host_g")
        m.d.comb += [
            bank.r_addr.eq(Mux(self.host, self._place(self.host_addr), Mux(adding, place, addresses[0]))),
            bank.r_en.eq(1), self.host_g_data.eq(word),
            bank.w_en.eq(add | decay | host_g), bank.w_addr.eq(Mux(add, late, addresses[6])),
            bank.w_data.eq(Mux(add, (word.as_signed() + held)[:bits], tail.change[:bits])),
            tail.coarse.eq(self.coarse), tail.word.eq(words.r_data), tail.host.eq(self.host),
            tail.host_data.eq(self.host_data),
            self.alarm.eq(updates[1] & (self.update == 0) & arith.crowded(word, bits, 1)),
            self.large.eq(updates[1] & (self.update == 0) & arith.crowded(word, bits, LARGE_BITS)),
            self.clipped.eq(apply & tail.clipped),
            words.w_en.eq(apply | host_w), words.w_data.eq(tail.master),
        ]
