"""cocotb bench of the core at its register window: the golden session, without any link."""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

from echolith.compiler.registers import READ_CYCLES
from echolith.sim.bench_chip import golden, replay

__all__ = ["Window"]


class Window:
    """Reads and writes of registers and streams at a core's ports, one word at a time."""

    def __init__(self, dut):
        self.dut = dut

    async def start(self):
        dut = self.dut
        for name in ("bus_w_stb", "bus_r_stb", "bus_addr", "bus_w_data", "push__valid", "push__payload", "pull__ready"):
            getattr(dut, name).value = 0
        dut.rst.value = 1
        Clock(dut.clk, 10, unit="ns").start()
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        dut.rst.value = 0

    async def read(self, addr, count):
        dut, words = self.dut, []
        for index in range(addr, addr + count):
            dut.bus_addr.value, dut.bus_r_stb.value = index, 1
            for _ in range(READ_CYCLES):
                await RisingEdge(dut.clk)
                dut.bus_r_stb.value = 0
            await FallingEdge(dut.clk)
            words.append(int(dut.bus_r_data.value))
            await RisingEdge(dut.clk)
        return words

    async def write(self, addr, words):
        dut = self.dut
        for index, word in enumerate(words):
            dut.bus_addr.value, dut.bus_w_data.value, dut.bus_w_stb.value = addr + index, word, 1
            await RisingEdge(dut.clk)
        dut.bus_w_stb.value = 0
        for _ in range(3):  # until go raises busy
            await RisingEdge(dut.clk)
        await FallingEdge(dut.clk)
        await RisingEdge(dut.clk)

    async def push(self, words):
        dut = self.dut
        dut.push__valid.value = 1
        for word in words:
            dut.push__payload.value = word
            await FallingEdge(dut.clk)
            while not dut.push__ready.value:
                await FallingEdge(dut.clk)
            await RisingEdge(dut.clk)
        dut.push__valid.value = 0

    async def pull(self, count):
        dut, words = self.dut, []
        dut.pull__ready.value = 1
        while len(words) < count:
            await FallingEdge(dut.clk)
            if dut.pull__valid.value:
                words.append(int(dut.pull__payload.value))
            await RisingEdge(dut.clk)
            dut.pull__ready.value = len(words) < count
        return words


@cocotb.test()
async def equals_the_integer_model(dut):
    window = Window(dut)
    await window.start()
    assert await replay(window, golden())
