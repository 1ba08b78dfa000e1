"""In which order a streaming run asks for the rows of a pair's records."""

from collections.abc import Iterator

import numpy as np

from echolith.compiler.isa import Field, Opcode
from echolith.compiler.record import Record

__all__ = ["fetches", "streamed"]

_PIECE = 1 << 15  # lines


def fetches(program: tuple[int, ...], entry: int) -> Iterator[tuple[int, bool]]:
    """(place in the record, whether a target) of every FETCH of one pair, in order; each is asked of sample a, then of
    b."""
    pc, offset, loops = entry, 0, []
    while True:
        word = program[pc]
        opcode, value = Opcode(word >> 28), word & 0xFFFFFF
        pc += 1
        if opcode == Opcode.HALT:
            return
        if opcode in (Opcode.LOOP, Opcode.PAIRS):
            loops.append([pc, value if opcode == Opcode.LOOP else 1])
        elif opcode == Opcode.END:
            loops[-1][1] -= 1
            if loops[-1][1]:
                pc = loops[-1][0]
            else:
                loops.pop()
        elif opcode == Opcode.NEXT:
            offset = 0
        elif opcode == Opcode.ROW:
            offset += value - (1 << 24 if value >> 23 else 0)
        elif opcode == Opcode.FETCH:
            yield offset, bool(word >> Field.TARGET & 1)


def streamed(record: Record, rows: tuple[np.ndarray, np.ndarray | None], program: tuple[int, ...], entry: int
             ) -> Iterator[np.ndarray]:
    """Lines of ``rows`` of inputs and of targets, (pair, rows, lines) each, in the order of the fetches, sample
    a before sample b, in pieces of bounded size."""
    found: list[np.ndarray] = []
    size = 0
    for place, wants_target in fetches(program, entry):
        words = rows[wants_target]
        assert words is not None
        row = record.number(place, wants_target)
        found.append(words[:, row].reshape(-1))
        size += found[-1].size
        if size >= _PIECE:
            yield np.concatenate(found)
            found, size = [], 0
    if found:
        yield np.concatenate(found)
