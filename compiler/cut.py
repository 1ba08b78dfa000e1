"""Programs that stop early: the first commands of a run of one pair, and nothing after them.

A command is an execution word. What a cut program does is what the whole program does up to that command, because
both are the same words in the same order: only the counts of loops change, and the last round is written out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from echolith.compiler.isa import VARIANT, Opcode, loop_word

__all__ = ["commands", "cut", "guard"]


@dataclass(frozen=True)
class _Loop:
    count: int
    body: tuple["int | _Loop", ...]
    size: int  # commands in a round, at least one


def commands(program: tuple[int, ...], entry: int) -> list[int]:
    """The execution words of a run of one pair, in the order in which they run."""
    return list(_unrolled(_parsed(program, entry)[0]))


def guard(program: tuple[int, ...], entry: int) -> int | None:
    """The place of the first GUARD of an entry, at which a flag ends the run; None if it has none."""
    end = next(i for i in range(entry, len(program)) if program[i] >> 28 == Opcode.HALT)
    return next((i for i in range(entry, end) if program[i] >> 28 == Opcode.GUARD
                 and not program[i] >> VARIANT & 1), None)


def cut(program: tuple[int, ...], entry: int, count: int) -> tuple[int, ...]:
    """A program for address 0 that runs the first ``count`` commands of ``entry`` on one pair and halts."""
    words: list[int] = []
    _emit(_parsed(program, entry)[0], count, words)
    return (*words, loop_word(Opcode.HALT))


def _parsed(program: tuple[int, ...], pc: int) -> tuple[tuple["int | _Loop", ...], int]:
    """What stands from ``pc`` to the END or HALT that closes it, and that word's index; ROW, SET and NEXT included, but
    no GUARD."""
    items: list[int | _Loop] = []
    while Opcode(program[pc] >> 28) not in (Opcode.HALT, Opcode.END):
        word = program[pc]
        if word >> 28 in (Opcode.LOOP, Opcode.PAIRS):
            count = word & 0xFFFFFF if word >> 28 == Opcode.LOOP else 1
            body, pc = _parsed(program, pc + 1)
            items.append(_Loop(count, body, sum(map(_size, body))))
        elif word >> 28 != Opcode.GUARD:  # whose address is one of the whole program
            items.append(word)
        pc += 1
    return tuple(items), pc


def _size(item: "int | _Loop") -> int:
    return item.count * item.size if isinstance(item, _Loop) else int(item >> 28 >= Opcode.FETCH)


def _unrolled(items: tuple["int | _Loop", ...]) -> Iterator[int]:
    for item in items:
        if isinstance(item, _Loop):
            for _ in range(item.count):
                yield from _unrolled(item.body)
        elif _size(item):
            yield item


def _emit(items: tuple["int | _Loop", ...], left: int, words: list[int]) -> None:
    """Append words until ``left`` commands are there."""
    for item in items:
        if left == 0:
            return
        if not isinstance(item, _Loop):
            words.append(item)
            left -= _size(item)
            continue
        rounds = min(left // item.size, item.count)
        if rounds:
            _repeat(item, rounds, words)
        left -= rounds * item.size
        if rounds < item.count:
            _emit(item.body, left, words)
            return


def _repeat(loop: _Loop, rounds: int, words: list[int]) -> None:
    if rounds > 1:
        words.append(loop_word(Opcode.LOOP, rounds))
    first = len(words)
    for item in loop.body:
        if isinstance(item, _Loop):
            _repeat(item, item.count, words)
        else:
            words.append(item)
    if rounds > 1:
        words.append(loop_word(Opcode.END, first))
