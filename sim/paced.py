"""The simulated chip behind a wire of a given baud rate, in its own time: what a session takes, in cycles."""

import struct
import subprocess
from pathlib import Path

from echolith.compiler.design import Design
from echolith.compiler.errors import LinkError
from echolith.host.transports import Transport
from echolith.sim.simulator import build

__all__ = ["BITS", "PacedTransport"]

BITS = 10  # of a byte on the wire: start, eight, stop
_HARNESS = Path(__file__).with_name("paced.cpp")


class PacedTransport(Transport):
    """Time passes only in `read` and `rest`: the host takes none.

    Parameters
    ----------
    design : Design
    baud, clock : int
        Bits per second of the wire, cycles per second of the core.

    Attributes
    ----------
    cycles : int
        That have passed.
    """

    def __init__(self, design: Design, *, baud: int, clock: int):
        self.cycles, self._clock, self._early = 0, clock, b""
        command = [str(build(design, _HARNESS)), str(round(BITS * clock / baud))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def seconds(self) -> float:
        """Time on the chip."""
        return self.cycles / self._clock

    def write(self, data: bytes) -> None:
        self._tell(b"W" + struct.pack("<I", len(data)) + data)

    def rest(self, seconds: float) -> None:
        self._early += self.read(1, seconds)

    def read(self, limit: int, timeout: float) -> bytes:
        if self._early:
            found, self._early = self._early, b""
            return found
        self._tell(b"R" + struct.pack("<Q", round(timeout * self._clock)))
        assert self._process.stdout is not None
        head = self._process.stdout.read(12)
        if len(head) < 12:
            raise LinkError(f"the simulator ended with exit code {self._process.wait()}")
        self.cycles, count = struct.unpack("<QI", head)
        return self._process.stdout.read(count)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _tell(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()
