"""What a run leaves in the registers: sticky flags, magnitudes and counters."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.registers import Flag
from echolith.rtl.pipeline import delay

__all__ = ["Flags"]


class Flags(wiring.Component):
    """Cleared by ``go``; but for the flags, which may follow, all count while ``busy`` only.

    Members
    -------
    raised : In
        A bit for each `Flag`.
    response_word, leading_word, clipped, waiting : In
        Of this cycle: magnitudes, words that an update clipped, whether the stream is waited for.
    flags, response, leading, saturated, cycles, stalls : Out
        The registers.
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        words = hw.lanes * hw.depths.weights + len(hw.vectors) * hw.depths.units  # each is clipped once at most
        bits = words.bit_length()
        super().__init__({
            "go": In(1), "busy": In(1), "raised": In(len(Flag)), "response_word": In(hw.width),
            "leading_word": In(hw.width), "clipped": In(bits), "waiting": In(1),
            "flags": Out(8), "response": Out(hw.width), "leading": Out(hw.width), "saturated": Out(bits),
            "cycles": Out(32), "stalls": Out(32),
        })

    def elaborate(self, platform):
        m, far = Module(), int(self.hw.overlap)
        counts = (self.response, self.leading, self.saturated, self.cycles, self.stalls)
        with m.If(self.go):
            m.d.sync += [register.eq(0) for register in counts]
        with m.Elif(self.busy):
            m.d.sync += [
                self.response.eq(self.response | delay(m, self.response_word, far, "response")),
                self.leading.eq(self.leading | delay(m, self.leading_word, far, "leading")),
                self.saturated.eq(self.saturated + self.clipped),
                self.cycles.eq(self.cycles + 1), self.stalls.eq(self.stalls + self.waiting),
            ]
        late = delay(m, self.raised, 1, "raised")
        with m.If(self.go):
            m.d.sync += self.flags.eq(0)
        with m.Else():
            m.d.sync += self.flags.eq(self.flags | late)
        return m
