"""Output words of a run in the order in which they come."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.timing import fetched
from echolith.rtl.memory import make_bank
from echolith.rtl.pipeline import delay

__all__ = ["Results"]


class Results(wiring.Component):
    """Members
    -------
    go, into : In
        Strobe before a run, and the entry of its first word (0 without `Hardware.overlap`). What does not fit is lost.
    costed_valid, costed, emitted_valid, emitted : In
        Outputs of the read-out and of the neurons themselves; never both in a cycle.
    r_addr, r_data : the host's port, `timing.fetched` cycles
    """

    def __init__(self, hw: Hardware, *, index_bits: int):
        self.hw = hw
        super().__init__({
            "go": In(1), "into": In(16), "costed_valid": In(1), "costed": In(hw.width), "emitted_valid": In(1),
            "emitted": In(hw.width), "r_addr": In(index_bits), "r_data": Out(hw.width),
        })

    def elaborate(self, platform):
        m, depth = Module(), self.hw.depths.results
        m.submodules.words = words = make_bank(
            platform, latency=fetched(self.hw), width=self.hw.width, depth=depth)
        place, valid = Signal(range(depth + 1)), delay(m, self.costed_valid | self.emitted_valid, 1, "valid")
        with m.If(self.go):
            m.d.sync += place.eq(self.into if self.hw.overlap else 0)
        with m.Elif(words.w_en):
            m.d.sync += place.eq(place + 1)
        m.d.comb += [
            words.w_en.eq(valid & (place < depth)), words.w_addr.eq(place),
            words.w_data.eq(delay(m, Mux(self.emitted_valid, self.emitted, self.costed), 1, "word")),
            words.r_addr.eq(self.r_addr), words.r_en.eq(1), self.r_data.eq(words.r_data),
        ]
        return m
