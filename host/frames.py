"""Frames of the byte link: the contract between host and chip, read by both ends.

    request  = END [seq][op][addr][count][words of WRITE and PUSH, little-endian][crc, high byte first] END
    response =     [seq][status][words of READ and PULL]                         [crc, high byte first] END

SLIP escapes (RFC 1055), CRC-16/XMODEM over everything before it. A response carries words only with status OK.
"""

import binascii
import struct
from enum import IntEnum

import numpy as np

__all__ = ["MAX_WORDS", "Op", "Parser", "Status", "deframe", "frame", "request"]

MAX_WORDS = 63  # in one frame: header and payload fill the chip's 256-byte buffer
_LONGEST = 1024  # bytes; twice the longest response with every byte escaped


class Op(IntEnum):
    """What a request asks for."""

    SYNC = 0  # number the next request seq + 1
    READ = 1  # consecutive registers
    WRITE = 2  # consecutive registers
    PUSH = 3  # words into the host-to-chip stream
    PULL = 4  # words from the chip-to-host stream


class Status(IntEnum):
    """What a response says."""

    OK = 0
    UNKNOWN = 1  # no such op
    REFUSED = 2  # out of order, or never synchronised since reset: not carried out


def frame(body: bytes) -> bytes:
    """``body`` with CRC, escapes and an END on either side; the first END closes whatever noise came before."""
    body += struct.pack(">H", binascii.crc_hqx(body, 0))
    return b"\xc0" + body.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


def deframe(escaped: bytes) -> bytes | None:
    """Body of what stood between two ENDs, or None unless escapes and CRC are right."""
    pieces = escaped.split(b"\xdb")
    if any(piece[:1] not in (b"\xdc", b"\xdd") for piece in pieces[1:]):
        return None
    plain = pieces[0] + b"".join((b"\xc0" if piece[0] == 0xDC else b"\xdb") + piece[1:] for piece in pieces[1:])
    if len(plain) < 4 or binascii.crc_hqx(plain[:-2], 0) != int.from_bytes(plain[-2:], "big"):
        return None
    return plain[:-2]


def request(seq: int, op: Op, addr: int, count: int, payload: bytes = b"") -> bytes:
    """Bytes of one request; ``payload`` is ``4 * count`` bytes for WRITE and PUSH, else empty."""
    return frame(bytes([seq & 0xFF, op, addr, count]) + payload)


class Parser:
    """Cuts a byte stream into responses.

    Attributes
    ----------
    dropped : int
        Damaged responses so far.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._tail = b""

    def feed(self, data: bytes) -> list[tuple[int, int, np.ndarray]]:
        """Sequence number, status and words (uint32) of every response that ``data`` completes."""
        *ended, tail = (self._tail + data).split(b"\xc0")
        self._tail = tail[-_LONGEST:]  # noise without an END must not pile up
        responses = []
        for piece in filter(None, ended):
            body = deframe(piece)
            if body is None or len(body) % 4 != 2:
                self.dropped += 1
            else:
                responses.append((body[0], body[1], np.frombuffer(body, "<u4", offset=2).astype(np.uint32)))
        return responses
