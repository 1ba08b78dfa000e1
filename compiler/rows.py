"""Input rows made ready while others are in use: which buffer, when, in which pieces."""

from dataclasses import dataclass

from echolith.compiler.design import Dynamics
from echolith.compiler.isa import VARIANT, Context, Dest, Opcode, exec_word, loop_word, paired_word

__all__ = ["Fill", "Rows"]


@dataclass
class Fill:
    """What is still to do before a row can be used."""

    opens: int  # step in which its buffer becomes free
    due: int  # step that uses it first
    words: list[tuple[int, ...]]  # the row's fetch, with the first tile of its drive, then every other tile


class Rows:
    """Rows of the next pair, from the first to the last, and of the older one back again.

    Each takes two buffers in turn. The last row forward is the first one back, and keeps its buffer, 0, if the next
    pair does not begin there.
    """

    def __init__(self, dynamics: Dynamics, tiles: int, words: int):
        self.d, self.tiles, self.words = dynamics, tiles, words
        self.count = dynamics.steps * dynamics.substeps - 1  # forces
        self.top = max(self.count - 1, 0) // dynamics.substeps  # the last row that a force sees
        self.kept = dynamics.substeps > 1 and dynamics.steps % 2 == 0

    def next_buffer(self, step: int) -> int:
        """Of the next pair's row in a step."""
        return self._next(step // self.d.substeps)

    def older_buffer(self, step: int) -> int:
        return self._older((self.count - 1 - step) // self.d.substeps)

    def _next(self, row: int) -> int:
        return (row + self.kept) % 2

    def _older(self, row: int) -> int:
        return 0 if self.kept and row == self.top else 2 + row % 2

    def fills(self) -> list[Fill]:
        """Of all rows; those that are due in step 0 first."""
        if self.count == 0:
            return []
        substeps, found = self.d.substeps, []
        for row in range(self.top + 1):
            move = [loop_word(Opcode.ROW, self.words)] if row else []
            opens = substeps - 1 if self.kept and row == 1 else (row - 1) * substeps
            found.append(Fill(opens, row * substeps, self._pieces(move, self._next(row), False)))
        for row in range(self.top - self.kept, -1, -1):
            move = [loop_word(Opcode.ROW, -self.words) | 1 << VARIANT] if row < self.d.steps - 1 else []
            due = max(self.count - (row + 1) * substeps, 0) if row < self.top else 0
            found.append(Fill(max(due - substeps, 0), due, self._pieces(move, self._older(row), True)))
        return sorted(found, key=lambda f: f.due)

    def _pieces(self, move: list[int], buffer: int, older: bool) -> list[tuple[int, ...]]:
        fetch = paired_word(exec_word(Opcode.FETCH), buffer=buffer, older=older, tile=True)
        drive = exec_word(Opcode.FORWARD, Context.PAIR, Dest.DRIVE, source=True)
        tiles = [paired_word(drive, buffer=buffer, tile=True, first=tile == 0) for tile in range(self.tiles)]
        return [(*move, fetch, tiles[0]), *((tile,) for tile in tiles[1:])]
