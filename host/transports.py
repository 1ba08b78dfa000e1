"""Pipes of bytes to a chip: a serial port, or a subprocess that simulates one."""

import contextlib
import errno
import os
import queue
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from urllib.parse import parse_qsl, urlsplit

import serial

from echolith.compiler.errors import LinkError

__all__ = ["PipeTransport", "SerialTransport", "Transport", "open_transport"]

_BAUD = 1_000_000
_REMEDY = {
    errno.ENOENT: "no such port; is the board plugged in? list ports with: python -m serial.tools.list_ports",
    errno.EACCES: "permission denied; add yourself to the port's group (dialout or uucp) and log in again",
    errno.EAGAIN: "another program holds the port; close it",  # lost the race for the exclusive lock
    errno.EBUSY: "another program holds the port; close it",
}


class Transport(ABC):
    """Bytes both ways. They may get lost or damaged, but neither overtake each other nor come twice.

    Every method raises `LinkError` when the other end is gone for good.
    """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of ``data``; may return before it is out."""

    @abstractmethod
    def read(self, limit: int, timeout: float) -> bytes:
        """1 to ``limit`` bytes as soon as there are any; empty if none came within ``timeout`` seconds."""

    def rest(self, seconds: float) -> None:
        """Let time pass at the other end."""
        time.sleep(seconds)

    @abstractmethod
    def close(self) -> None:
        """Release the other end; harmless when repeated."""


class SerialTransport(Transport):
    """A serial port, opened exclusively, with stale input discarded.

    Raises
    ------
    LinkError
        If the port is absent, busy, forbidden, or unplugged later.
    """

    def __init__(self, path: str, baud: int = _BAUD):
        self._path = path
        try:
            self._port = serial.Serial(path, baud, timeout=0, exclusive=True)
        except (OSError, ValueError) as error:  # SerialException is an OSError
            remedy = _REMEDY.get(getattr(error, "errno", None) or 0, str(error))
            raise LinkError(f"cannot open the serial port: {remedy} ({path} at {baud} baud)") from error
        # USB adapters hold answers back for 16 ms otherwise. Not every driver or system can.
        with contextlib.suppress(AttributeError, NotImplementedError, OSError, ValueError):
            self._port.set_low_latency_mode(True)
        self._port.reset_input_buffer()

    def __str__(self) -> str:
        return f"{self._path} at {self._port.baudrate} baud"

    def write(self, data: bytes) -> None:
        with self._unplugged():
            self._port.write(data)

    def read(self, limit: int, timeout: float) -> bytes:
        with self._unplugged():
            if self._port.timeout != timeout:  # setting it reprograms the port
                self._port.timeout = timeout
            first = self._port.read(1)
            return first + self._port.read(min(limit - 1, self._port.in_waiting)) if first else b""

    def close(self) -> None:
        self._port.close()

    @contextlib.contextmanager
    def _unplugged(self):
        try:
            yield
        except (OSError, TypeError) as error:  # pyserial trips over its own None when closed under it
            raise LinkError(f"the serial port is gone; plug the board in and open it again ({self._path})") from error


class PipeTransport(Transport):
    """A subprocess that speaks bytes on stdin and stdout. Killed by `close`.

    Parameters
    ----------
    process : subprocess.Popen
        Started with ``stdin=PIPE, stdout=PIPE``; with ``stderr=PIPE`` errors quote its last lines.

    Raises
    ------
    LinkError
        If the process has ended.
    """

    def __init__(self, process: "subprocess.Popen[bytes]"):
        if process.stdin is None or process.stdout is None:
            raise ValueError(f"process must have stdin=PIPE and stdout=PIPE, not {process.args!r}")
        self._process = process
        self._stdin = process.stdin
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._rest = b""
        self._last_words: deque[bytes] = deque(maxlen=10)
        # Threads, so that neither pipe can fill up and block the process, on any operating system.
        self._threads = [threading.Thread(target=self._pump, args=(process.stdout.fileno(),), daemon=True)]
        if process.stderr is not None:
            self._threads.append(threading.Thread(target=self._last_words.extend, args=(process.stderr,), daemon=True))
        for thread in self._threads:
            thread.start()

    def __str__(self) -> str:
        return f"process {self._process.pid}"

    def write(self, data: bytes) -> None:
        try:
            self._stdin.write(data)
            self._stdin.flush()
        except (OSError, ValueError) as error:
            raise self._death() from error

    def read(self, limit: int, timeout: float) -> bytes:
        if not self._rest:
            try:
                self._rest = self._chunks.get(timeout=timeout)
            except queue.Empty:
                return b""
            if not self._rest:
                self._chunks.put(b"")  # the end of stdout stays readable
                raise self._death()
        data, self._rest = self._rest[:limit], self._rest[limit:]
        return data

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # stdin may hold bytes for a process that is gone
                    pipe.close()

    def _pump(self, fileno: int) -> None:
        while data := os.read(fileno, 65536):
            self._chunks.put(data)
        self._chunks.put(b"")

    def _death(self) -> LinkError:
        with contextlib.suppress(subprocess.TimeoutExpired):  # let it finish dying: its own exit code says more
            self._process.wait(1)
        self.close()
        tail = b"".join(self._last_words).decode(errors="replace").strip()
        return LinkError(f"the simulator ended with exit code {self._process.returncode}; its last words: {tail!r}")


def open_transport(url: str) -> Transport:
    """The transport that ``url`` names: ``serial:///dev/ttyUSB0?baud=1000000`` or ``serial://COM3``.

    Raises
    ------
    LinkError
        If it cannot be opened, or there is no such kind of link.
    """
    parts = urlsplit(url if isinstance(url, str) else "")
    if parts.scheme == "pcie":
        raise LinkError(f"pcie links are not built yet; use serial: or sim: instead of {url!r}")
    if parts.scheme != "serial" or not parts.netloc + parts.path:
        raise LinkError(f"a link must be serial://<port>?baud=<rate>, not {url!r}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    baud = options.pop("baud", str(_BAUD))
    if options or not baud.isdecimal() or int(baud) == 0:
        raise LinkError(f"a serial link takes one option, baud=<bits per second>, not {parts.query!r}")
    return SerialTransport(parts.netloc + parts.path, int(baud))
