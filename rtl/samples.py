"""Where samples come from: a port that asks for lines by their addresses, and block memory behind it.

What stands behind the port answers every request with one line, in order, after any number of cycles; a controller of
external memory may as well.
"""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from echolith.rtl.memory import make_bank
from echolith.rtl.pipeline import delay

__all__ = ["SampleMemory", "SamplePort"]


class SamplePort(wiring.Signature):
    """As seen from who asks.

    Members
    -------
    request : Out, stream of addresses
    lines : In, stream of lines; the payload comes `timing.lined` - 1 cycles later
    drop : Out(1)
        Strobe, without a request: what has been asked for is not wanted any more, no line of it may come.
    """

    def __init__(self, address_bits: int, line: int):
        super().__init__({"request": Out(stream.Signature(address_bits)), "lines": In(stream.Signature(line)),
                          "drop": Out(1)})


class SampleMemory(wiring.Component):
    """``depth`` lines in block memory: a line a cycle, told one cycle after its request, which must not come before the
    line asked for last is taken, in the same cycle at the earliest.

    Members
    -------
    port : the other end of `SamplePort`
    w_addr, w_data, w_en : at any time, but to lines that are not being asked for
    """

    def __init__(self, *, line: int, depth: int, latency: int):
        self.line, self.depth, self.latency = line, depth, latency
        bits = (depth - 1).bit_length()
        super().__init__({"port": In(SamplePort(bits, line)), "w_addr": In(bits), "w_data": In(line), "w_en": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = make_bank(
            platform, latency=min(self.latency, 2), width=self.line, depth=self.depth)
        request, lines = self.port.request, self.port.lines
        early = max(self.latency - 2, 0)  # registers from the request to the memory's enables, which are far apart
        m.d.comb += [
            request.ready.eq(1),
            words.r_addr.eq(delay(m, request.payload, early, "address")),
            words.r_en.eq(delay(m, request.valid, early, "asked")), lines.payload.eq(words.r_data),
            words.w_addr.eq(self.w_addr), words.w_data.eq(self.w_data), words.w_en.eq(self.w_en),
        ]
        with m.If(request.valid):
            m.d.sync += lines.valid.eq(1)
        with m.Elif(lines.ready | self.port.drop):
            m.d.sync += lines.valid.eq(0)
        return m
