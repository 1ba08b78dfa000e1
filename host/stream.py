"""In which order a streaming run asks for the rows of a pair's records."""

from collections.abc import Iterator

from echolith.compiler.isa import Field, Opcode

__all__ = ["fetches"]


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
