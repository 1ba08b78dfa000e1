"""cocotb bench of the core behind a simulated PCIe endpoint: the golden session through a 32-bit memory BAR.

Byte 4 * a of the BAR is register a; the upper half of the BAR is the streams: writes push, reads pull. Root complex and
endpoint are cocotbext-pcie's, so that transactions are enumerated, addressed and split as on a real bus.
"""

import struct

import cocotb
from cocotbext.pcie.core import Device, MemoryEndpoint, RootComplex

from echolith.sim.bench_chip import MOST, golden, replay
from echolith.sim.bench_core import Window

__all__ = ["Bar", "Card"]

_SIZE, _STREAM = 4096, 2048  # bytes of the BAR; offset of the streams


class Card(MemoryEndpoint):
    """An endpoint whose only BAR is a core's register window and streams."""

    def __init__(self, window):
        super().__init__()
        self.vendor_id, self.device_id = 0x1234, 0xEC40
        self._window = window
        self.add_mem_region(_SIZE, self._read, self._write)

    async def _read(self, addr, length):
        count = length // 4
        words = await (self._window.pull(count) if addr >= _STREAM else self._window.read(addr // 4, count))
        return struct.pack(f"<{count}I", *words)

    async def _write(self, addr, data):
        words = struct.unpack(f"<{len(data) // 4}I", data)
        await (self._window.push(words) if addr >= _STREAM else self._window.write(addr // 4, words))


class Bar:
    """The host's view: what a driver does with the mapped BAR."""

    def __init__(self, dut, region):
        self.dut, self._region = dut, region

    async def read(self, addr, count):
        return await self._region.read_dwords(4 * addr, count)

    async def write(self, addr, words):
        await self._region.write_dwords(4 * addr, words)
        await self._region.read_dwords(4 * addr, 1)  # writes are posted; a read pushes them out

    async def push(self, words):
        for at in range(0, len(words), MOST):
            await self._region.write_dwords(_STREAM, words[at:at + MOST])

    async def pull(self, count):
        words = []
        while len(words) < count:
            words += await self._region.read_dwords(_STREAM, min(count - len(words), MOST))
        return words


@cocotb.test()
async def equals_the_integer_model(dut):
    window = Window(dut)
    await window.start()
    root, card = RootComplex(), Card(window)
    for log in (root.log, card.log):
        log.setLevel("WARNING")
    root.make_port().connect(Device(card))
    await root.enumerate()
    function = root.find_device(card.pcie_id)
    await function.enable_device()
    assert await replay(Bar(dut, function.bar_window[0]), golden())
