"""ECP5's carry cells as an accumulator: their look-up tables leave out the last total, so no multiplexer is needed."""

from amaranth.hdl import Const, Instance, Module, Signal

from echolith.rtl.accumulator import Accumulator

__all__ = ["Ccu2c"]

# With D set the table is A ^ (B & ~C), the sum without its carry; the lowest four bits are A, the carry where there is
# no other.
_SUM = Const(0xA6AA, 16)


class Ccu2c(Accumulator):
    """An `Accumulator` of one CCU2C for two bits."""

    def elaborate(self, platform):
        m = Module()
        pairs = (self.width + 1) // 2
        total, value, summed = (Signal(2 * pairs, name=name, reset_less=True) for name in ("sums", "wide", "next"))
        extended = Signal.like(self.total)
        m.d.comb += [extended.eq(self.value), value.eq(extended), self.total.eq(total)]
        m.d.sync += total.eq(summed)
        carry = Const(0)
        for pair in range(pairs):
            after, low, high = Signal(name=f"carry_{pair}"), 2 * pair, 2 * pair + 1
            m.submodules[f"pair_{pair}"] = Instance(
                "CCU2C", p_INIT0=_SUM, p_INIT1=_SUM, p_INJECT1_0="NO", p_INJECT1_1="NO", i_CIN=carry, o_COUT=after,
                i_A0=value[low], i_B0=total[low], i_C0=self.first, i_D0=Const(1), o_S0=summed[low],
                i_A1=value[high], i_B1=total[high], i_C1=self.first, i_D1=Const(1), o_S1=summed[high])
            carry = after
        return m
