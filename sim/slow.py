"""The chip in Amaranth's own simulator, for machines without a C++ compiler: python -m echolith.sim.slow FILE

FILE is a saved design. Speaks the link's bytes on stdin and stdout, like the Verilator process, at some thousand cycles
per second: give the link a timeout of tens of seconds.
"""

import os
import queue
import sys
import threading

from amaranth.sim import Simulator

from echolith.compiler.design import Design
from echolith.compiler.errors import EcholithError
from echolith.compiler.files import load
from echolith.rtl.chip import Chip

__all__ = ["main", "speak"]

_COMPUTING = 256  # cycles between looks at stdin while the core is busy and no byte is on its way
_SETTLE = 512  # quiet cycles until everything in flight has left the link


class _Input:
    """Bytes from a file descriptor, read by a thread: a pipe cannot be polled on every operating system."""

    def __init__(self, descriptor: int):
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._rest = b""
        self.ended = False
        threading.Thread(target=self._pump, args=(descriptor,), daemon=True).start()

    def _pump(self, descriptor: int) -> None:
        while data := os.read(descriptor, 65536):
            self._chunks.put(data)
        self._chunks.put(b"")

    def peek(self, wait: bool) -> int | None:
        """The next byte, or None if there is none yet (after ``wait``: no more at all)."""
        while not self._rest and not self.ended and (wait or not self._chunks.empty()):
            self._rest = self._chunks.get()
            self.ended = not self._rest
        return self._rest[0] if self._rest else None

    def take(self) -> None:
        self._rest = self._rest[1:]


def speak(design: Design, stdin: int, stdout: int) -> None:
    """Simulate until end of file on descriptor ``stdin``; answers go to ``stdout``."""
    chip, source = Chip(design), _Input(stdin)

    async def bench(ctx):
        quiet = 0
        while True:
            byte = source.peek(wait=quiet > _SETTLE)
            if source.ended and byte is None:
                return
            busy, sending = ctx.get(chip.busy), ctx.get(chip.tx.valid)
            cycles = _COMPUTING if busy and byte is None and quiet > _SETTLE // 2 else 1
            ctx.set(chip.rx.valid, byte is not None)
            ctx.set(chip.rx.payload, byte or 0)
            ctx.set(chip.tx.ready, cycles == 1)  # nothing is sent while nobody looks
            if sending and cycles == 1:
                os.write(stdout, bytes([ctx.get(chip.tx.payload)]))
            if byte is not None and ctx.get(chip.rx.ready):
                source.take()
            quiet = 0 if byte is not None or sending else quiet + (0 if busy and quiet > _SETTLE // 2 else 1)
            await ctx.tick().repeat(cycles)

    simulator = Simulator(chip)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def main(arguments: list[str]) -> int:
    """Command line; the exit code."""
    if len(arguments) != 1:
        print(f"usage: python -m echolith.sim.slow FILE, not {arguments!r}", file=sys.stderr)
        return 2
    try:
        design = load(arguments[0])
    except EcholithError as error:
        print(error, file=sys.stderr)
        return 1
    speak(design, sys.stdin.fileno(), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
