"""cocotb bench of a chip: replays golden.json over the framed byte link and compares every word that comes back.

Needs cocotb and a simulator, nothing else; `echolith.sim.export` puts it beside the Verilog as test_chip.py. The words
expected were computed by the integer model. Environment: GOLDEN, the file (golden.json beside this one).

    request  = END [seq][op][addr][count][words, little-endian][crc, high byte first] END
    response =     [seq][status][words][crc]                                          END     (SLIP, CRC-16/XMODEM)
"""

import binascii
import json
import os
import struct
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, with_timeout

__all__ = ["MOST", "Link", "golden", "replay"]

END, ESC = 0xC0, 0xDB
SYNC, READ, WRITE, PUSH, PULL = range(5)
MOST = 63  # words in a frame
LONGEST = 100_000  # cycles from a request to the end of its response
STATUS = 5  # address of the status register; bit 0: busy


def unpack(text):
    """Words of a golden string; None for one that may have any value."""
    return [None if text[i] == "." else int(text[i:i + 8], 16) for i in range(0, len(text), 8)]


def frame(body):
    body += struct.pack(">H", binascii.crc_hqx(body, 0))
    return bytes([END]) + body.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + bytes([END])


def deframe(escaped):
    plain = bytes(escaped).replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
    assert binascii.crc_hqx(plain[:-2], 0) == int.from_bytes(plain[-2:], "big"), f"damaged response {plain.hex()}"
    return plain[:-2]


class Link:
    """Requests to the chip's byte streams, one at a time."""

    def __init__(self, dut):
        self.dut, self.seq = dut, 0

    async def start(self):
        dut = self.dut
        dut.rst.value, dut.rx__valid.value, dut.rx__payload.value, dut.tx__ready.value = 1, 0, 0, 1
        Clock(dut.clk, 10, unit="ns").start()
        for _ in range(4):
            await FallingEdge(dut.clk)
        dut.rst.value = 0
        await self._request(SYNC, 0, 0)

    async def read(self, addr, count):
        return await self._request(READ, addr, count)

    async def write(self, addr, words):
        await self._request(WRITE, addr, len(words), words)

    async def push(self, words):
        for at in range(0, len(words), MOST):
            part = words[at:at + MOST]
            await self._request(PUSH, 0, len(part), part)

    async def pull(self, count):
        words = []
        while len(words) < count:
            words += await self._request(PULL, 0, min(count - len(words), MOST))
        return words

    async def _request(self, op, addr, count, words=()):
        """Words of the response."""
        body = struct.pack(f"<4B{len(words)}I", self.seq, op, addr, count, *words)
        answer = deframe(await self._exchange(frame(body)))
        assert (answer[0], answer[1]) == (self.seq, 0), f"request {self.seq} was answered by {answer[:2].hex()}"
        self.seq = (self.seq + 1) & 0xFF
        return list(struct.unpack(f"<{len(answer) // 4}I", answer[2:]))

    async def _exchange(self, data):
        """Send bytes; what comes back up to the END that closes it."""
        dut, got, sent = self.dut, bytearray(), 0
        dut.rx__valid.value, dut.rx__payload.value = 1, data[0]
        for _ in range(LONGEST):
            await FallingEdge(dut.clk)
            taken = sent < len(data) and bool(dut.rx__ready.value)
            if dut.tx__valid.value:
                byte = int(dut.tx__payload.value)
                if byte == END and got:
                    return got
                if byte != END:
                    got.append(byte)
            if taken:
                sent += 1
                await RisingEdge(dut.clk)
                dut.rx__valid.value = sent < len(data)
                dut.rx__payload.value = data[min(sent, len(data) - 1)]
        raise AssertionError(f"no response within {LONGEST} cycles; {sent} of {len(data)} bytes were taken")


async def replay(link, steps):
    """Play golden steps over ``link`` and compare; returns how many words were equal."""
    note, compared = "", 0
    for number, step in enumerate(steps):
        kind = step[0]
        if kind == "note":
            note = step[1]
            link.dut._log.info(note)
            continue
        expected, got = unpack(step[-1]) if kind != "wait" else [0], None
        if kind == "write":
            await link.write(step[1], expected)
        elif kind == "push":
            await link.push(expected)
        elif kind == "read":
            got = await link.read(step[1], len(expected))
        elif kind == "pull":
            got = await link.pull(len(expected))
        else:
            if link.dut.busy.value:
                await with_timeout(FallingEdge(link.dut.busy), 100, "ms")
            got = [(await link.read(STATUS, 1))[0] & 1]
        if got is None:
            continue
        for index, (have, want) in enumerate(zip(got, expected, strict=True)):
            where = f"{note}: step {number} ({kind}), word {index}"
            assert want is None or have == want, f"{where}: expected {want:08x}, not {have:08x}"
        compared += len(got)
    link.dut._log.info("%d words equal", compared)
    return compared


def golden():
    """Steps of the golden file."""
    path = Path(os.environ.get("GOLDEN") or Path(__file__).with_name("golden.json"))
    return json.loads(path.read_text())["steps"]


@cocotb.test()
async def equals_the_integer_model(dut):
    link = Link(dut)
    await link.start()
    assert await replay(link, golden())
