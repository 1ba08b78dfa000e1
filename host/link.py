"""The host's end of the link: requests acknowledged and repeated until the chip has carried them out once.

Two requests are kept in flight. Every answer proves that all requests before it were carried out, because the chip
refuses gaps; so WRITE and PUSH go back to the oldest unanswered request and repeat, and the chip acknowledges a
repeated one without doing it twice. READ and PULL need the answer itself: after a loss they renumber (SYNC) and ask
again from the first missing word. The bytes are described in `echolith.host.frames`.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from echolith.compiler.errors import LinkError
from echolith.host.frames import MAX_WORDS, Op, Parser, Status, request
from echolith.host.transports import Transport

__all__ = ["Link"]

_WINDOW = 2  # the chip has two frame buffers
_FLOOD = 8192  # bytes without a useful answer, many times what can be in flight: treated like silence
_BEGUN = 4  # bytes: sequence number and status, escaped, which the chip sends before it moves any word
_WORD_MAX = 0xFFFF_FFFF


class Link:
    """Registers and streams of a chip, over any transport. Opening it synchronises.

    Parameters
    ----------
    transport : echolith.host.transports.Transport
        Bytes to and from the chip; closed by `close`.
    timeout : float
        Seconds of silence after which a request is repeated. Two full frames and an answer must fit into it: 0.25 is
        right from 115200 baud on.
    attempts : int
        Repetitions without any progress after which a call gives up.

    Attributes
    ----------
    resent : int
        Requests sent again.
    dropped : int
        Damaged responses received; many point at a wrong baud rate or a bad cable.

    Raises
    ------
    LinkError
        By every call: nothing answers, or not reliably. What the chip has carried out of that call is then unknown;
        the next call synchronises again, which also aborts a transfer that hangs in the chip.
    ValueError
        By every call: an argument is out of range; nothing was sent.
    """

    def __init__(self, transport: Transport, *, timeout: float = 0.25, attempts: int = 8):
        if not timeout > 0:
            raise ValueError(f"timeout must be positive seconds, not {timeout!r}")
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {attempts!r}")
        self.resent = 0
        self._transport = transport
        self._timeout = timeout
        self._attempts = attempts
        self._seq = os.urandom(1)[0]  # of the next request; random, to differ from answers to a previous session
        self._synced = False
        self._parser = Parser()
        self._received: deque[tuple[int, int, np.ndarray]] = deque()
        self._heard = 0  # bytes received since the last useful answer
        self._refused = False  # the last useful answer was a refusal
        self._sync()

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        return self._parser.dropped

    def close(self) -> None:
        self._transport.close()

    def read(self, addr: int, count: int = 1) -> list[int]:
        """``count`` consecutive registers from word address ``addr``."""
        _check_window(addr, count)
        return [int(word) for word in self._fetch(Op.READ, addr, count, None)]

    def write(self, addr: int, *words: int) -> None:
        """Consecutive registers from word address ``addr``, each written exactly once, in order."""
        _check_window(addr, len(words))
        self._deliver(Op.WRITE, addr, _words(words), self._attempts)

    def push(self, words: "Sequence[int] | np.ndarray", *, stall: float = 10.0) -> None:
        """Every word of ``words`` (unsigned 32-bit, any shape, in C order) once into the host-to-chip stream.

        ``stall`` is how many seconds the chip may leave the stream waiting before the call gives up.
        """
        patience = max(self._attempts, int(np.ceil(stall / self._timeout)))
        self._deliver(Op.PUSH, 0, _words(words), patience)

    def pull(self, count: int, rewind: Callable[[int], None]) -> np.ndarray:
        """The next ``count`` words of the chip-to-host stream, uint32 of shape (count,).

        A lost response takes its words with it, so ``rewind(k)`` must make the stream continue with word ``k`` of this
        transfer (set the bank pointer again, through this link). It is called only after a loss.
        """
        if count < 0:
            raise ValueError(f"count must not be negative, not {count!r}")
        return self._fetch(Op.PULL, 0, count, rewind)

    def rest(self, seconds: float) -> None:
        """Let the chip compute."""
        self._transport.rest(seconds)

    def _sync(self) -> None:
        """Number the next request; everything that arrived before the answer is stale and discarded."""
        self._synced = False
        for attempt in range(self._attempts):
            self.resent += attempt > 0
            self._transport.write(request(self._seq, Op.SYNC, 0, 0))
            for seq, status, words in self._responses():
                if seq == self._seq and status == Status.OK and not len(words):
                    self._useful(status)
                    self._seq = (self._seq + 1) & 0xFF
                    self._synced = True
                    return
        raise self._failure("SYNC")

    def _resync(self) -> None:
        # Not a number in flight: an answer to one of those must not pass for the answer to this.
        self._seq = (self._seq + 16) & 0xFF
        self._sync()

    def _deliver(self, op: Op, addr: int, words: np.ndarray, patience: int) -> None:
        """Send WRITE or PUSH frames, going back to the oldest unanswered one after a silence or a refusal."""
        if not self._synced:
            self._resync()
        self._synced = False  # until everything is known to have been carried out
        starts = range(0, len(words), MAX_WORDS)
        payloads = [words[i : i + MAX_WORDS].astype("<u4").tobytes() for i in starts]
        done = rounds = 0
        sent = 0
        while done < len(payloads):
            for index in range(sent, min(done + _WINDOW, len(payloads))):
                where = addr + starts[index] if op == Op.WRITE else 0
                size = len(payloads[index]) // 4
                self._transport.write(request(self._seq + index - done, op, where, size, payloads[index]))
                sent = index + 1
            answered = self._acknowledged(op, sent - done)
            if answered:
                done += answered
                self._seq = (self._seq + answered) & 0xFF
                rounds = 0
                continue
            rounds += 1
            if rounds >= patience:
                raise self._failure(op.name)
            self.resent += sent - done
            sent = done
        self._synced = True

    def _acknowledged(self, op: Op, flying: int) -> int:
        """How many of the requests in flight the next useful answer proves done; 0 means send them again."""
        for seq, status, words in self._responses():
            index = (seq - self._seq) & 0xFF
            if index >= flying or len(words):
                continue  # an answer to an earlier copy of a request that is already done
            self._useful(status)
            if status == Status.OK:
                return index + 1
            if index == flying - 1:
                return 0  # the chip has seen all that was sent: no use in waiting
        return 0

    def _fetch(self, op: Op, addr: int, count: int, rewind: Callable[[int], None] | None) -> np.ndarray:
        """Words of READ or PULL; after any loss renumber and go on from the first missing word."""
        if not self._synced:
            self._resync()
        out = np.zeros(count, np.uint32)
        done = rounds = 0
        while done < count:
            got = self._ask(op, addr, out, done)
            rounds = 0 if got else rounds + 1
            done += got
            if done == count:
                break
            if rounds >= self._attempts:
                self._synced = False
                raise self._failure(op.name)
            self.resent += 1
            self._resync()
            if rewind is not None:
                rewind(done)
        return out

    def _ask(self, op: Op, addr: int, out: np.ndarray, start: int) -> int:
        """Fill ``out`` from ``start`` until the end or the first loss; returns the number of words received."""
        done = sent = start
        self._synced = False
        flying: deque[tuple[int, int]] = deque()
        while done < len(out):
            while sent < len(out) and len(flying) < _WINDOW:
                size = min(MAX_WORDS, len(out) - sent)
                where = addr + sent if op == Op.READ else 0
                self._transport.write(request(self._seq, op, where, size))
                flying.append((self._seq, size))
                self._seq = (self._seq + 1) & 0xFF
                sent += size
            words = self._answer(op, flying)
            if words is None:
                return done - start
            out[done : done + len(words)] = words
            done += len(words)
        self._synced = True
        return done - start

    def _answer(self, op: Op, flying: deque[tuple[int, int]]) -> np.ndarray | None:
        """Words of the oldest request in flight, which is removed; None if they are lost."""
        for seq, status, words in self._responses():
            if seq not in (number for number, _ in flying):
                continue
            self._useful(status)
            if status != Status.OK or (seq, len(words)) != flying[0]:
                return None
            flying.popleft()
            return words
        return None

    def _responses(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Undamaged responses as they arrive, until the transport is silent for `timeout` or brings only noise."""
        budget = _FLOOD
        while True:
            while self._received:
                yield self._received.popleft()
            data = self._transport.read(4096, self._timeout) if budget > 0 else b""
            if not data:
                return
            budget -= len(data)
            self._heard += len(data)
            self._received.extend(self._parser.feed(data))

    def _useful(self, status: int) -> None:
        """Note what the chip answered to a request in flight."""
        self._heard = 0
        self._refused = status == Status.REFUSED
        if status not in (Status.OK, Status.REFUSED):
            raise LinkError(f"the chip does not know this request; load a bitstream of this version (status {status})")

    def _failure(self, name: str) -> LinkError:
        """The error for a call that got nowhere, by what was last heard."""
        if 0 < self._heard <= _BEGUN:
            found = "an answer began and did not end; the core stalls the stream: is it running, and fed?"
        elif self._heard:
            found = f"only damaged bytes came back ({self._heard}); check the baud rate, the cable and its ground"
        elif self._refused:
            found = "the chip refuses the sequence numbers; it was reset meanwhile: set it up again"
        else:
            found = "nothing came back; check power, cable, port, and that a bitstream is loaded"
        return LinkError(f"{name} failed after {self._attempts} attempts or more: {found} ({self._transport})")


def _check_window(addr: int, count: int) -> None:
    if not 0 <= addr <= 0xFF or not 0 <= count <= 0x100 - addr:
        raise ValueError(f"registers must lie in 0..255, not {count} from {addr!r}")


def _words(words: "Sequence[int] | np.ndarray") -> np.ndarray:
    """``words`` flattened, as uint32."""
    array = np.asarray(words).reshape(-1)
    if not array.size:
        return np.zeros(0, np.uint32)
    if array.dtype.kind not in "iu":
        raise ValueError(f"words must be integers, not {array.dtype}")
    if int(array.min()) < 0 or int(array.max()) > _WORD_MAX:
        raise ValueError(f"words must be unsigned 32-bit, not {int(array.min())}..{int(array.max())}")
    return array.astype(np.uint32)
