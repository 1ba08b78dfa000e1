"""Straight-line code as counted loops."""

from collections.abc import Sequence

from echolith.compiler.assembler import Assembler

__all__ = ["roll"]

_Parts = Sequence[tuple[int, ...]]


def roll(asm: Assembler, parts: _Parts) -> None:
    """Emit parts one after the other, what repeats itself as a loop."""
    at = 0
    while at < len(parts):
        length, times = max(((n, _times(parts, at, n)) for n in range(1, (len(parts) - at) // 2 + 1)),
                            key=lambda x: x[0] * (x[1] - 1), default=(1, 1))
        if times > 1:
            with asm.loop(times):
                _emit(asm, parts[at:at + length])
        else:
            length = 1
            _emit(asm, parts[at:at + 1])
        at += length * times


def _times(parts: _Parts, at: int, length: int) -> int:
    """How often the next ``length`` parts come in a row."""
    body, times = parts[at:at + length], 1
    while parts[at + times * length:at + (times + 1) * length] == body:
        times += 1
    return times


def _emit(asm: Assembler, parts: _Parts) -> None:
    for word in (word for part in parts for word in part):
        asm.emit(word)
