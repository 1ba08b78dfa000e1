"""The only memory shape of the machine: one read port, one write port, synchronous, nothing read while written."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Bank", "RegisteredBank", "make_bank", "weight_bank"]


class Bank(wiring.Component):
    """``depth`` words of ``width`` bits.

    Members
    -------
    r_addr, r_en, r_data : the word at ``r_addr``, one cycle after ``r_en``; it stays until the next read.
    w_addr, w_data, w_en : written at the end of the cycle. Reading the address being written is undefined.
    """

    latency = 1

    def __init__(self, *, width: int, depth: int):
        self.width, self.depth = width, max(depth, 2)
        bits = (self.depth - 1).bit_length()
        super().__init__({
            "r_addr": In(bits), "r_en": In(1), "r_data": Out(width),
            "w_addr": In(bits), "w_data": In(width), "w_en": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        self._words(m, self.r_data)
        return m

    def _words(self, m: Module, out) -> None:
        m.submodules.words = words = memory.Memory(shape=unsigned(self.width), depth=self.depth, init=[])
        read, write = words.read_port(), words.write_port()
        m.d.comb += [
            read.addr.eq(self.r_addr), read.en.eq(self.r_en), out.eq(read.data),
            write.addr.eq(self.w_addr), write.data.eq(self.w_data), write.en.eq(self.w_en),
        ]


class RegisteredBank(Bank):
    """The word comes a cycle later, out of the register that block memories have behind them."""

    latency = 2

    def elaborate(self, platform):
        m, read, out = Module(), Signal(self.width), Signal(self.width, reset_less=True)
        self._words(m, read)
        m.d.sync += out.eq(read)
        m.d.comb += self.r_data.eq(out)
        return m


def make_bank(platform, *, latency: int, width: int, depth: int) -> Bank:
    """With a latency of 2 what the platform names as ``registered_bank``, else a `RegisteredBank`; with 1 a `Bank`."""
    if latency == 1:
        return Bank(width=width, depth=depth)
    return getattr(platform, "registered_bank", RegisteredBank)(width=width, depth=depth)


def weight_bank(platform, *, latency: int, width: int, depth: int) -> wiring.Component:
    """Memory of one lane's master words: what the platform names as ``weight_bank``, else as `make_bank`.

    With a latency of 1 an update reads and writes in turn, and sweeps only read, so one port for both is enough."""
    if hasattr(platform, "weight_bank"):
        return platform.weight_bank(width=width, depth=depth)
    return make_bank(platform, latency=latency, width=width, depth=depth)
