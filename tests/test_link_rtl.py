"""The shipping host link over the RTL link, in the Amaranth simulator."""

import random
from collections import deque

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

import echolith.rtl.link
from echolith.compiler.errors import LinkError
from echolith.host.frames import Op, Status, deframe, frame, request
from echolith.host.link import Link
from echolith.host.transports import Transport

BANK = 512  # words behind the streams
POINTER = 15  # address of the bank pointer
WORD = 0xFFFF_FFFF


class Board(wiring.Component):
    """RTL link with a register file, and a memory behind the streams at a pointer held in register 15."""

    stall: In(1)
    writes: Out(16)

    def elaborate(self, platform):
        m = Module()
        m.submodules.link = link = self.link = echolith.rtl.link.Link()
        m.submodules.registers = registers = Memory(shape=32, depth=256, init=[])
        m.submodules.bank = bank = Memory(shape=32, depth=BANK, init=[])
        load, store = registers.read_port(), registers.write_port()
        get, put = bank.read_port(domain="comb"), bank.write_port()
        pointer = Signal(range(BANK))
        m.d.comb += [
            load.en.eq(link.bus_r_stb), load.addr.eq(link.bus_addr), link.bus_r_data.eq(load.data),
            store.en.eq(link.bus_w_stb), store.addr.eq(link.bus_addr), store.data.eq(link.bus_w_data),
            link.push.ready.eq(~self.stall), link.pull.valid.eq(~self.stall),
            put.en.eq(link.push.valid & ~self.stall), put.addr.eq(pointer), put.data.eq(link.push.payload),
            get.addr.eq(pointer), link.pull.payload.eq(get.data),
        ]  # fmt: skip
        with m.If((link.push.valid | link.pull.ready) & ~self.stall):
            m.d.sync += pointer.eq(pointer + 1)
        with m.If(link.bus_w_stb):
            m.d.sync += self.writes.eq(self.writes + 1)
            with m.If(link.bus_addr == POINTER):
                m.d.sync += pointer.eq(link.bus_w_data)
        return m


class SimulatedBoard(Transport):
    """Bytes to and from a `Board` in the Amaranth simulator; 0.1 seconds of timeout are 1000 cycles."""

    def __init__(self):
        self.board = Board()
        self._sim = Simulator(self.board)
        self._sim.add_clock(1e-6)
        self._sim.add_testbench(self._bench)
        self._to_chip, self._to_host = deque(), deque()
        self._cycles = 0
        self.stalled = False
        self.writes = 0

    async def _bench(self, ctx):
        link = self.board.link
        ctx.set(link.tx.ready, 1)
        while True:
            ctx.set(self.board.stall, self.stalled)
            ctx.set(link.rx.valid, bool(self._to_chip))
            if self._to_chip:
                ctx.set(link.rx.payload, self._to_chip[0])
                if ctx.get(link.rx.ready):
                    self._to_chip.popleft()
            if ctx.get(link.tx.valid):
                self._to_host.append(ctx.get(link.tx.payload))
            self.writes = ctx.get(self.board.writes)
            await ctx.tick()
            self._cycles += 1

    def write(self, data):
        self._to_chip.extend(data)

    def read(self, limit, timeout):
        end = self._cycles + int(timeout * 10_000)
        while (self._to_chip or self._cycles < end) and not self._to_host:
            self._sim.advance()
        # Collect what follows immediately, as a serial port would.
        data = bytes(self._to_host)[:limit]
        for _ in data:
            self._to_host.popleft()
        return data

    def close(self):
        pass

    def say(self, *frames):
        """Bodies of the responses to raw bytes, None for a damaged one."""
        for each in frames:
            self.write(each)
        heard = b""
        while data := self.read(4096, 0.1):
            heard += data
        return [deframe(piece) for piece in heard.split(b"\xc0") if piece]


class Noisy(Transport):
    """Hands bytes on to ``inner``, both ways, after ``damage(byte) -> bytes``."""

    def __init__(self, inner, damage):
        self.inner, self.damage = inner, damage

    def write(self, data):
        self.inner.write(b"".join(map(self.damage, data)))

    def read(self, limit, timeout):
        while data := self.inner.read(limit, timeout):
            if damaged := b"".join(map(self.damage, data)):
                return damaged
        return b""

    def close(self):
        self.inner.close()


def random_damage(seed, rate):
    rng = random.Random(seed)

    def damage(byte):
        if rng.random() >= rate:
            return bytes([byte])
        return rng.choice([b"", bytes([byte ^ 1 << rng.randrange(8)]), bytes([byte, byte]), rng.randbytes(3), b"\xc0"])

    return damage


def words(seed, count):
    """Random words with many bytes that need escapes."""
    rng = np.random.default_rng(seed)
    special = rng.choice(np.array([0xC0C0DBDB, 0xDCDDC0DB, 0, WORD], np.uint32), count)
    return np.where(rng.random(count) < 0.3, special, rng.integers(0, WORD, count, np.uint32, endpoint=True))


def store(link, data):
    link.write(POINTER, 0)
    link.push(data)


def load(link, count):
    link.write(POINTER, 0)
    return link.pull(count, lambda k: link.write(POINTER, k))


def test_rtl_registers_and_streams():
    chip = SimulatedBoard()
    link = Link(chip, timeout=0.1)
    link.write(0x20, 0xC0DBDCDD)
    assert link.read(0x20) == [0xC0DBDCDD]
    link.write(0x40, *range(100))
    assert link.read(0x40, 100) == list(range(100))
    assert link.read(0x3F, 2) == [0, 0]
    data = words(1, 200)
    store(link, data)
    np.testing.assert_array_equal(load(link, 200), data)
    assert chip.writes == 1 + 100 + 2
    assert (link.resent, link.dropped) == (0, 0)


def test_rtl_sequence_rules():
    chip = SimulatedBoard()
    ask = chip.say
    write = request(1, Op.WRITE, 5, 1, b"\x78\x56\x34\x12")
    assert ask(request(0, Op.WRITE, 5, 1, bytes(4))) == [bytes([0, Status.REFUSED])]  # before any SYNC
    assert ask(request(1, Op.WRITE, 5, 1, bytes(4))) == [bytes([1, Status.REFUSED])]
    assert ask(request(0, Op.SYNC, 0, 0)) == [bytes([0, Status.OK])]
    assert ask(write, write) == [bytes([1, Status.OK])] * 2
    assert chip.writes == 1
    assert ask(request(3, Op.WRITE, 5, 1, bytes(4))) == [bytes([3, Status.REFUSED])]
    value = bytes([2, Status.OK, 0x78, 0x56, 0x34, 0x12])
    read = request(2, Op.READ, 5, 1)
    assert ask(read, read) == [value] * 2
    assert ask(request(3, Op.PULL, 0, 1)) == [bytes([3, Status.OK, 0, 0, 0, 0])]
    assert ask(request(3, Op.PULL, 0, 1)) == [bytes([3, Status.REFUSED])]
    assert ask(frame(bytes([4, 5, 0, 0]))) == [bytes([4, Status.UNKNOWN])]
    assert ask(request(4, Op.READ, 5, 0)) == [bytes([4, Status.OK])]
    assert ask(write) == [bytes([1, Status.REFUSED])]
    assert chip.writes == 1


def test_rtl_drops_malformed_frames():
    chip = SimulatedBoard()
    chip.say(request(0, Op.SYNC, 0, 0))
    good = request(1, Op.WRITE, 5, 1, b"\xc0\x11\x22\x33")
    wrong = [bytes([b ^ 0x10]) for b in good]
    for i in range(1, len(good) - 1):
        assert chip.say(good[:i] + wrong[i] + good[i + 1 :]) == [], i
        assert chip.say(good[:i] + good[i + 1 :]) == [], i
    for body in (
        bytes([1, Op.WRITE, 5, 2]) + bytes(4),  # shorter than its count
        bytes([1, Op.WRITE, 5, 0]) + bytes(4),  # longer
        bytes([1, Op.READ, 5, 1]) + bytes(4),
        bytes([1, Op.WRITE, 5, 64]),
        bytes([1, Op.WRITE, 5, 64]) + bytes(256),
        bytes([1, Op.WRITE, 5, 63]) + bytes(508) + bytes([1, Op.WRITE, 5, 63]) + bytes(252),  # would fit mod 512
        b"\1", b"",
    ):  # fmt: skip
        assert chip.say(frame(body)) == [], body
    assert chip.writes == 0
    assert chip.say(good) == [bytes([1, Status.OK])]
    assert chip.writes == 1


def test_rtl_full_frame_does_not_overwrite_its_header():
    chip = SimulatedBoard()
    chip.say(request(0, Op.SYNC, 0, 0))
    data = words(2, 63)
    assert chip.say(request(1, Op.WRITE, 100, 63, data.tobytes())) == [bytes([1, Status.OK])]
    assert chip.say(request(2, Op.READ, 100, 63)) == [bytes([2, Status.OK]) + data.tobytes()]


def test_rtl_frames_may_share_an_end_and_follow_at_once():
    chip = SimulatedBoard()
    chip.say(request(0, Op.SYNC, 0, 0))
    first, second = (request(seq, Op.WRITE, seq, 1, bytes([seq] * 4)) for seq in (1, 2))
    assert chip.say(first + second[1:]) == [bytes([1, Status.OK]), bytes([2, Status.OK])]
    assert chip.say(request(3, Op.READ, 1, 2)) == [bytes([3, Status.OK, 1, 1, 1, 1, 2, 2, 2, 2])]


@pytest.mark.parametrize("stuck", [request(1, Op.PUSH, 0, 1, bytes(4)), request(1, Op.PULL, 0, 1)])
def test_rtl_sync_aborts_a_stalled_transfer(stuck):
    chip = SimulatedBoard()
    chip.say(request(0, Op.SYNC, 0, 0))
    chip.stalled = True
    assert chip.say(stuck) == [None]  # sequence number and status only
    assert chip.say(request(2, Op.READ, 0, 0)) == []  # waits; the SYNC replaces it
    assert chip.say(request(7, Op.SYNC, 0, 0)) == [bytes([7, Status.OK])]
    chip.stalled = False
    assert chip.say(request(8, Op.PULL, 0, 1)) == [bytes([8, Status.OK, 0, 0, 0, 0])]


def test_rtl_garbage_never_writes():
    rng = random.Random(0)
    chip = SimulatedBoard()
    chip.say(request(0, Op.SYNC, 0, 0))
    for _ in range(60):
        kinds = [rng.randbytes(1), b"\xc0", b"\xdb", b"\1\2\5\1", b"\1\3\0\1", bytes(2)]
        chip.write(b"".join(rng.choice(kinds) for _ in range(rng.randrange(100))))
    chip.say()
    assert chip.writes == 0
    link = Link(chip, timeout=0.1)
    link.write(3, 7)
    assert link.read(3) == [7]
    assert chip.writes == 1


def test_rtl_over_a_bad_line():
    chip = SimulatedBoard()
    link = Link(Noisy(chip, random_damage(3, 0.002)), timeout=0.1, attempts=30)
    data = words(3, 400)
    store(link, data)
    before = chip.writes
    link.write(0x20, *range(150))
    assert chip.writes == before + 150
    assert link.read(0x20, 150) == list(range(150))
    np.testing.assert_array_equal(load(link, 400), data)
    assert link.resent > 0 and link.dropped > 0


@pytest.mark.parametrize("start", [lambda link: link.push(range(100), stall=0.3), lambda link: load(link, 100)])
def test_rtl_recovers_from_a_stalled_stream(start):
    chip = SimulatedBoard()
    link = Link(chip, timeout=0.1, attempts=3)
    link.write(9, 99)
    chip.stalled = True
    with pytest.raises(LinkError, match="(PUSH|PULL) failed after 3 attempts or more: an answer began and did not end"):
        start(link)
    assert link.read(9) == [99]  # while the stream is still stalled
    chip.stalled = False
    store(link, range(100))
    np.testing.assert_array_equal(load(link, 100), range(100))


def test_rtl_push_waits_for_a_slow_stream():
    chip = SimulatedBoard()
    link = Link(chip, timeout=0.1, attempts=2)
    link.write(POINTER, 0)
    chip.stalled = True
    original = chip.read

    def read(limit, timeout):
        chip.stalled = link.resent < 10
        return original(limit, timeout)

    chip.read = read
    link.push(range(150), stall=3.0)
    assert link.resent >= 10
    np.testing.assert_array_equal(load(link, 150), range(150))
