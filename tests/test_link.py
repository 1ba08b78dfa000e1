"""The host link over a plain model of the chip, through a channel that damages bytes."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echolith.compiler.errors import LinkError
from echolith.host.frames import Op, Status, deframe, frame
from echolith.host.link import Link
from echolith.host.transports import Transport

BANK = 512  # words behind the streams
POINTER = 15  # address of the bank pointer
WORD = 0xFFFF_FFFF


class ModelChip(Transport):
    """What the chip does, written down a second time without cycles."""

    def __init__(self):
        self.registers = [0] * 256
        self.bank = [0] * BANK
        self.writes = []
        self._expected = None
        self._in, self._out = b"", b""

    def write(self, data):
        *ended, self._in = (self._in + data).split(b"\xc0")
        for piece in ended:
            body = deframe(piece)
            if body is None or len(body) < 4:
                continue
            seq, op, addr, count = body[:4]
            if count > 63 or len(body) != 4 + 4 * count * (op in (Op.WRITE, Op.PUSH)):
                continue
            status, words = self._execute(seq, op, addr, count, np.frombuffer(body, "<u4", offset=4).tolist())
            # frame() opens with an END, the chip does not
            self._out += frame(bytes([seq, status]) + np.array(words, "<u4").tobytes())[1:]

    def _execute(self, seq, op, addr, count, words):
        if op > Op.PULL:
            return Status.UNKNOWN, []
        if op == Op.SYNC:
            self._expected = (seq + 1) % 256
            return Status.OK, []
        again = self._expected is not None and seq == (self._expected - 1) % 256
        if not again and seq != self._expected or again and op == Op.PULL:
            return Status.REFUSED, []
        self._expected = (seq + 1) % 256
        if op == Op.READ:
            return Status.OK, [self.registers[(addr + i) % 256] for i in range(count)]
        if op == Op.PULL:
            return Status.OK, [self._next() for _ in range(count)]
        if not again:
            for i, word in enumerate(words):
                if op == Op.WRITE:
                    self.writes.append((addr + i, word))
                    self.registers[(addr + i) % 256] = word
                else:
                    self._next(word)
        return Status.OK, []

    def _next(self, word=None):
        place = self.registers[POINTER] % BANK
        self.registers[POINTER] = place + 1
        if word is not None:
            self.bank[place] = word
        return self.bank[place]

    def read(self, limit, timeout):
        data, self._out = self._out[:limit], self._out[limit:]
        return data

    def close(self):
        pass


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


kinds = st.sampled_from(["drop", "flip", "insert", "twice"])
faults = st.lists(st.tuples(st.integers(0, 250), kinds, st.binary(min_size=1, max_size=9)), max_size=12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(faults=faults, every=st.sampled_from([120, 400, 1500]), base=st.integers(0, 255))
def test_host_delivers_exactly_or_raises(faults, every, base):
    """``faults`` hit after the given numbers of undamaged bytes, over and over, no closer than ``every`` bytes."""
    chip = ModelChip()
    state = {"left": faults[0][0] if faults else 0, "next": 0}

    def damage(byte):
        if not faults:
            return bytes([byte])
        state["left"] -= 1
        if state["left"] >= 0:
            return bytes([byte])
        _, kind, noise = faults[state["next"] % len(faults)]
        state["next"] += 1
        state["left"] = faults[state["next"] % len(faults)][0] + every
        flipped = bytes([byte ^ (noise[0] or 1)])
        return {"drop": b"", "flip": flipped, "insert": noise + bytes([byte]), "twice": bytes([byte] * 2)}[kind]

    data = words(base, 150)
    try:
        link = Link(Noisy(chip, damage))
        store(link, data)
        assert chip.bank[:150] == data.tolist()
        written = len(chip.writes)
        link.write(base & 0x1F | 0x20, *data[:70].tolist())
        assert chip.writes[written:] == [((base & 0x1F | 0x20) + i, word) for i, word in enumerate(data[:70].tolist())]
        assert link.read(base & 0x1F | 0x20, 70) == data[:70].tolist()
        np.testing.assert_array_equal(load(link, 150), data)
    except LinkError:
        pass
    link = Link(chip)  # whatever happened, the next session works
    store(link, data)
    np.testing.assert_array_equal(load(link, 150), data)


def test_host_repeats_a_push_whose_answers_were_lost(monkeypatch):
    chip = ModelChip()
    link = Link(chip)
    link.write(POINTER, 0)
    answers = []

    def read(limit, timeout):
        answers.append(ModelChip.read(chip, limit, timeout))
        return answers[-1] if len(answers) > 1 else b""

    monkeypatch.setattr(chip, "read", read)
    link.push(range(126))
    assert answers[0].count(b"\xc0") == 2  # both frames had been carried out
    assert chip.bank[:128] == [*range(126), 0, 0]
    assert link.resent == 2


def test_host_names_a_reset_chip():
    chip = ModelChip()
    link = Link(chip)
    link.write(3, 1)
    chip._expected = None
    with pytest.raises(LinkError, match="WRITE failed .* it was reset meanwhile: set it up again"):
        link.write(3, 2)
    assert chip.registers[3] == 1
    link.write(3, 2)
    assert chip.registers[3] == 2


class Deaf(Transport):
    def __init__(self, answer):
        self.answer = answer

    def write(self, data):
        pass

    def read(self, limit, timeout):
        return self.answer

    def close(self):
        pass


@pytest.mark.parametrize(
    "answer, text",
    [
        (b"", "SYNC failed after 3 attempts or more: nothing came back; check power, cable, port,"),
        (b"\x55" * 100, r"SYNC failed .* only damaged bytes came back \(\d+\); check the baud rate"),
        (frame(b"\0\0") * 9, "SYNC failed"),
    ],
)
def test_host_gives_up(answer, text, monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda n: b"\x80" * n)
    with pytest.raises(LinkError, match=text):
        Link(Deaf(answer), attempts=3)


def test_host_refuses_an_incompatible_chip(monkeypatch):
    monkeypatch.setattr(ModelChip, "_execute", lambda self, seq, op, *rest: (op and Status.UNKNOWN, []))
    link = Link(ModelChip())
    with pytest.raises(LinkError, match=r"does not know this request; load a bitstream of this version \(status 1\)$"):
        link.read(0)


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda link: link.read(250, 7), r"^registers must lie in 0\.\.255, not 7 from 250$"),
        (lambda link: link.write(-1, 0), r"^registers must lie in 0\.\.255, not 1 from -1$"),
        (lambda link: link.push([0, -1]), r"^words must be unsigned 32-bit, not -1\.\.0$"),
        (lambda link: link.push([1 << 32]), r"^words must be unsigned 32-bit, not 4294967296\.\.4294967296$"),
        (lambda link: link.push([1.5]), r"^words must be integers, not float64$"),
        (lambda link: link.pull(-1, print), r"^count must not be negative, not -1$"),
        (lambda link: Link(ModelChip(), timeout=0), r"^timeout must be positive seconds, not 0$"),
        (lambda link: Link(ModelChip(), attempts=0), r"^attempts must be at least 1, not 0$"),
    ],
)
def test_host_checks_its_arguments(call, text):
    with pytest.raises(ValueError, match=text):
        call(Link(ModelChip()))


def test_empty_transfers():
    link = Link(ModelChip())
    link.push([])
    link.write(0)
    assert link.read(0, 0) == []
    assert link.pull(0, print).shape == (0,)
