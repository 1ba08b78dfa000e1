"""Buffers of input rows, beside the positions."""

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.isa import BUFFERS
from echolith.compiler.timing import fetched
from echolith.rtl.memory import make_bank
from echolith.rtl.pipeline import delay

__all__ = ["InputBuffers"]


class InputBuffers(wiring.Component):
    """`isa.BUFFERS` rows of both slots, which the array reads together. Addresses have the buffer above the unit.

    Members
    -------
    busy : In(1)
        The sequencer's side writes, else the host.
    r_addr, r_a, r_b : the words, `timing.fetched` cycles later
    w_en, w_slot, w_addr, w_data : of the sequencer's side; written a cycle later
    host_w_en, host_slot, host_addr, host_data : of the host's
    """

    def __init__(self, hw: Hardware, *, bits: int):
        self.hw, self.bits = hw, bits
        address = bits + (BUFFERS - 1).bit_length()
        super().__init__({
            "busy": In(1), "r_addr": In(address), "r_a": Out(hw.width), "r_b": Out(hw.width),
            "w_en": In(1), "w_slot": In(1), "w_addr": In(address), "w_data": In(hw.width),
            "host_w_en": In(1), "host_slot": In(1), "host_addr": In(address), "host_data": In(hw.width),
        })

    def elaborate(self, platform):
        m = Module()
        address = delay(m, Mux(self.busy, self.w_addr, self.host_addr), 1, "w_addr")
        data = delay(m, Mux(self.busy, self.w_data, self.host_data), 1, "w_data")
        for slot, word in enumerate((self.r_a, self.r_b)):
            m.submodules[f"slot_{slot}"] = bank = make_bank(
                platform, latency=fetched(self.hw), width=self.hw.width, depth=BUFFERS << self.bits)
            m.d.comb += [
                bank.r_addr.eq(self.r_addr), bank.r_en.eq(1), word.eq(bank.r_data),
                bank.w_en.eq(delay(m, Mux(self.busy, self.w_en & (self.w_slot == slot),
                                          self.host_w_en & (self.host_slot == slot)), 1, f"w_en_{slot}")),
                bank.w_addr.eq(address), bank.w_data.eq(data),
            ]
        return m
