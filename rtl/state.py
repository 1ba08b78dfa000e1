"""The state memory: positions of both slots, and momenta."""

from amaranth.hdl import Module, Mux, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.timing import fetched
from echolith.rtl.memory import Bank, make_bank

__all__ = ["State"]

_CONTEXTS = 4  # of positions, in each slot


class State(wiring.Component):
    """The array reads both slots' positions at once, the neuron unit moves one element a cycle. Words come
    `timing.fetched` cycles after their addresses, which have the context above the unit; momenta's, and the host's of
    positions, have the slot below it.

    Members
    -------
    busy : In(1)
        Else all ports are the host's.
    x_addr, x_a, x_b : the array's
    swept : In(1)
        Without `Hardware.overlap`, where there is one read port: it is the array's now, or the neuron unit's.
    q_r_addr, q_r_en, q_a, q_b, p_r_addr, p : the neuron unit's, and the host's
    q_w_en, q_w_addr, q_w_data : In
        A word of positions; an enable for each slot. The data is zero unless one is set, or ``busy`` is not.
    p_w_en, p_w_addr, p_w_data : In
    host_index, host_q_en, host_p_en, host_word : In
        The word is zero unless the host writes.
    """

    def __init__(self, hw: Hardware, *, bits: int, index_bits: int):
        self.hw, self.bits, w = hw, bits, hw.width
        super().__init__({
            "busy": In(1), "swept": In(1), "x_addr": In(bits + 2), "x_a": Out(signed(w)), "x_b": Out(signed(w)),
            "q_r_addr": In(bits + 2), "q_r_en": In(1), "q_a": Out(signed(w)), "q_b": Out(signed(w)),
            "p_r_addr": In(bits + 3), "p": Out(signed(w)),
            "q_w_en": In(2), "q_w_addr": In(bits + 2), "q_w_data": In(w),
            "p_w_en": In(1), "p_w_addr": In(bits + 3), "p_w_data": In(w),
            "host_index": In(index_bits), "host_q_en": In(1), "host_p_en": In(1), "host_word": In(w),
        })

    def elaborate(self, platform):
        m = Module()
        for slot, (name, word, swept) in enumerate((("q_a", self.q_a, self.x_a), ("q_b", self.q_b, self.x_b))):
            self._positions(m, platform, slot, name, word, swept)
        m.submodules.p = p = self._bank(platform, 2 * _CONTEXTS)
        m.d.comb += [
            p.r_addr.eq(Mux(self.busy, self.p_r_addr, self.host_index)), p.r_en.eq(1), self.p.eq(p.r_data),
            p.w_addr.eq(Mux(self.busy, self.p_w_addr, self.host_index)),
            p.w_en.eq(Mux(self.busy, self.p_w_en, self.host_p_en)),
            p.w_data.eq(Mux(self.busy, self.p_w_data, self.host_word)),
        ]
        return m

    def _bank(self, platform, contexts: int) -> Bank:
        return make_bank(platform, latency=fetched(self.hw), width=self.hw.width, depth=contexts << self.bits)

    def _positions(self, m: Module, platform, slot: int, name: str, word, swept) -> None:
        m.submodules[name] = q = self._bank(platform, _CONTEXTS)
        theirs, shared = self.host_index[1:], 0 if self.hw.overlap else self.swept
        m.d.comb += [
            q.r_addr.eq(Mux(self.busy, Mux(shared, self.x_addr, self.q_r_addr), theirs)),
            q.r_en.eq(~self.busy | shared | self.q_r_en), word.eq(q.r_data),
            q.w_en.eq(Mux(self.busy, self.q_w_en[slot], self.host_q_en & (self.host_index[0] == slot))),
            q.w_addr.eq(Mux(self.busy, self.q_w_addr, theirs)), q.w_data.eq(self.q_w_data | self.host_word),
        ]
        if not self.hw.overlap:
            m.d.comb += swept.eq(q.r_data)
            return
        m.submodules[f"x_{name[-1]}"] = x = self._bank(platform, _CONTEXTS)  # the neuron unit reads at the same time
        m.d.comb += [x.r_addr.eq(self.x_addr), x.r_en.eq(1), swept.eq(x.r_data), x.w_en.eq(q.w_en),
                     x.w_addr.eq(q.w_addr), x.w_data.eq(q.w_data)]
