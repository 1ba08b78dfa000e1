"""A link with no chip at its end: how long words take on the wire, and a core to compute, by the clock of neither."""

import numpy as np

from echolith.compiler.cycles import cycles
from echolith.compiler.design import Design
from echolith.compiler.registers import ABI, MAGIC, REGISTERS, address
from echolith.host.frames import MAX_WORDS

__all__ = ["Wire"]

_BYTE = 10  # bits: start, eight, stop
_REQUEST, _RESPONSE = 2 + 4 + 2, 1 + 2 + 2  # bytes of a frame besides its words
_ESCAPED = 1 + 2 / 256  # bytes of one that may be any


class Wire:
    """Stands in for a `host.link.Link` to a chip that holds ``design`` already. Words read are 0.

    Attributes
    ----------
    now : float
        Seconds that have passed: the host takes none.
    """

    def __init__(self, design: Design, *, baud: float, clock: float):
        self.design, self.clock, self.now = design, clock, 0.0
        self._byte = _BYTE / baud
        self._done = 0.0  # when the core is
        self._registers = {r.name: 0 for r in REGISTERS} | {
            "magic": MAGIC, "abi": ABI, "hardware": design.hardware.hardware_id, "program": design.program_id}
        self._cycles: dict[tuple[int, int], int] = {}

    def read(self, addr: int, count: int = 1) -> list[int]:
        self._pass(_REQUEST, _RESPONSE + 4 * count)
        self._registers["status"] = int(self.now < self._done)
        return [self._registers[r.name] for r in REGISTERS[addr:addr + count]]

    def write(self, addr: int, *words: int) -> None:
        self._pass(_REQUEST + 4 * len(words), _RESPONSE)
        self._registers |= {r.name: word for r, word in zip(REGISTERS[addr:addr + len(words)], words, strict=True)}
        if addr + len(words) - 1 == address("control") and words[-1] & 1:
            key = self._registers["entry"], self._registers["count"]
            if key not in self._cycles:
                self._cycles[key] = cycles(self.design.program, key[0], self.design.hardware, key[1])
            self._done = self.now + self._cycles[key] / self.clock

    def push(self, words: np.ndarray, *, stall: float = 0.0) -> None:
        """Back to back; the last frame is waited for."""
        values = np.ascontiguousarray(words, "<u4").view(np.uint8)
        escaped = np.count_nonzero((values == 0xC0) | (values == 0xDB))
        self._pass(-(-len(words) // MAX_WORDS) * _REQUEST + values.size + int(escaped), _RESPONSE)

    def pull(self, count: int, rewind=None) -> np.ndarray:
        """Answers back to back."""
        self._pass(_REQUEST, -(-count // MAX_WORDS) * _RESPONSE + 4 * count * _ESCAPED)
        return np.zeros(count, np.uint32)

    def rest(self, seconds: float) -> None:
        self.now += seconds

    def close(self) -> None:
        pass

    def _pass(self, *counts: float) -> None:
        """Bytes one after the other, in either direction."""
        self.now += sum(counts) * self._byte
