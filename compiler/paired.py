"""A pair of samples runs forward beside the echoes of the pair before it.

While the results of one sweep are on their way, the array works for another copy. Inputs and drives of the next row are
made ready meanwhile, tile by tile behind sweeps that leave the row unit alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from echolith.compiler.isa import VARIANT, Context, Dest, Opcode, Setting, exec_word, loop_word, paired_word
from echolith.compiler.phases import Phases
from echolith.compiler.sweep import Sweep

__all__ = ["Paired"]


@dataclass
class _Fill:
    """What is still to do before a row can be used."""

    opens: int  # step in which its buffer is free
    due: int  # step before which it must be done
    words: list[tuple[int, ...]]  # the row's fetch with the first tile of its drive, then every other tile


@dataclass(frozen=True)
class _Net:
    """Words of one force of each copy."""

    forward: dict[int, int]  # by context
    outer: int | None  # for ECHO_A
    back: dict[int, int]


class Paired(Phases):
    """Needs `Hardware.paired`, one coupling beside its drive, and a cost at the last step only."""

    @property
    def can_pair(self) -> bool:
        s = self.s
        if not s.hardware.paired or not s.hardware.learn or s.dynamics.cost_at != "last" or "readout" not in s.blocks:
            return False
        kinds = [(x.opcode, x.input) for x in s.sweeps]
        own, inputs = (Opcode.OUTER, False), (Opcode.OUTER, True)
        outers = [k for k in kinds if k[0] == Opcode.OUTER]
        if kinds != [(Opcode.FORWARD, False), *outers, (Opcode.TRANSPOSED, False)]:
            return False
        return outers in ([], [own], [own, inputs]) and self._beside()

    def _beside(self) -> bool:
        """Whether the only drive goes on where the coupling's columns end."""
        coupling = self.s.blocks[self.s.sweeps[0].block]
        drives = [self.s.blocks[name] for name in self.s.drives]
        return [(b.base, b.stride) for b in drives] == [(coupling.base + coupling.columns, coupling.stride)]

    def learn_in_pairs(self) -> None:
        """From the first pair forward to the last pair back; ``older`` things are of the pair that goes back."""
        self.forward(learn=True, echo_only=True)
        with self.loop(None):
            self.readout(learn=True, target=True)
            self.spread((Context.ECHO_A, Context.ECHO_B))
            last = self.emit(0)
            self.emit(loop_word(Opcode.NEXT))
            self.units(Context.PAIR, clear=True)
            self._together()
        self.words[last] = loop_word(Opcode.GUARD, len(self.words)) | 1 << VARIANT
        self.known.clear()
        self.fetch()
        self.retrace((Context.ECHO_A, Context.ECHO_B))

    def _together(self) -> None:
        coupling = self.s.blocks[self.s.sweeps[0].block]
        drive = self.s.blocks[next(iter(self.s.drives))]
        self.point(coupling, coupling.columns, drive.columns)
        self.set(Setting.LENGTH, self.s.inputs)
        self.block = self.s.sweeps[0].block
        _roll(self, [step for step in self._steps() if step])
        d = self.s.dynamics
        if d.steps > 1 and d.substeps == 1:  # no force sees the last row
            self.row(self.row_words)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _steps(self) -> Iterator[tuple[int, ...]]:
        """Words of every step: echo A, the second half of echo B's step before, the next pair, the rest of A, the first
        half of B. Every FORWARD takes the region of row operands that the one before the last has left."""
        d = self.s.dynamics
        count = d.steps * d.substeps - 1
        net, fills = self._net(), self._fills(count)
        yield tuple(w for fill in fills if fill.due <= 0 for part in fill.words for w in part)
        fills = [fill for fill in fills if fill.due > 0]
        for step in range(count + 1):
            found: list[int] = []
            a, n, b = (3 * step + i & 1 for i in range(3))
            row, back = step // d.substeps, (count - 1 - step) // d.substeps
            late = (count - step) // d.substeps  # the row of B's step before
            if step < count:
                found.append(_mark(net.forward[Context.ECHO_A], 2 + back % 2, a))
            if step:
                found += self._second(net, Context.ECHO_B, 2 + late % 2, 3 * step - 1 & 1, fills, step)
            if step < count:
                found.append(_mark(net.forward[Context.PAIR], row % 2, n, older=False))
                found += self._second(net, Context.ECHO_A, 2 + back % 2, a, fills, step)
                found += [_mark(net.forward[Context.ECHO_B], 2 + back % 2, b),
                          _mark(net.back[Context.PAIR], row % 2, n, older=False), *self._filled(fills, step, step + 1)]
            yield tuple(found)

    def _second(self, net: _Net, context: int, buffer: int, region: int, fills: list[_Fill], step: int) -> list[int]:
        """Outer products and the way back of an echo."""
        found = []
        if net.outer is not None:
            word = net.outer & ~3 | context
            found += [_mark(word, buffer, region), *self._filled(fills, step - (context == Context.ECHO_B), step)]
        return [*found, _mark(net.back[context], buffer, region), *self._filled(fills, step, step)]

    @staticmethod
    def _filled(fills: list[_Fill], opened: int, due: int) -> list[int]:
        """One tile of the most urgent fill whose buffer is free after step ``opened`` began; before step ``due`` ends,
        all that is wanted in it."""
        ready = sorted((f for f in fills if f.words and f.opens <= opened), key=lambda f: f.due)
        if not ready:
            return []
        found = list(ready[0].words.pop(0))
        for fill in ready:
            while fill.words and fill.due <= due:
                found += fill.words.pop(0)
        return found

    def _net(self) -> _Net:
        first, *outers, last = self.s.sweeps
        contexts = (Context.PAIR, Context.ECHO_A, Context.ECHO_B)

        def word(s: Sweep, context: int) -> int:
            return self.word(s, context, context != Context.PAIR, context != Context.PAIR, False)

        outer = None
        if outers:
            outer = exec_word(Opcode.OUTER, Context.ECHO_A, source=any(s.input for s in outers))
        return _Net({c: word(first, c) for c in contexts}, outer, {c: word(last, c) for c in contexts})

    def _fills(self, count: int) -> list[_Fill]:
        """Rows of the next pair, from the first on, and of the older one, from the last force's back to the first."""
        d, found = self.s.dynamics, []
        for row in range((count - 1) // d.substeps + 1):
            move = [loop_word(Opcode.ROW, self.row_words)] if row else []
            found.append(_Fill((row - 1) * d.substeps, row * d.substeps, self._row(move, row % 2, False)))
        top = (count - 1) // d.substeps
        for row in range(top, -1, -1):
            move = [loop_word(Opcode.ROW, -self.row_words) | 1 << VARIANT] if row < d.steps - 1 else []
            first = max(count - (row + 1) * d.substeps, 0) if row < top else 0
            opens = max(first - d.substeps, 0)
            found.append(_Fill(opens, first, self._row(move, 2 + row % 2, True)))
        return found

    def _row(self, move: list[int], buffer: int, older: bool) -> list[tuple[int, ...]]:
        fetch = paired_word(exec_word(Opcode.FETCH), buffer=buffer, older=older)
        tiles = [paired_word(exec_word(Opcode.FORWARD, Context.PAIR, Dest.DRIVE, source=True), buffer=buffer,
                             tile=True, first=tile == 0)
                 for tile in range(self.tiles(self.s.blocks[self.s.sweeps[0].block]))]
        return [(*move, fetch, tiles[0]), *((tile,) for tile in tiles[1:])]


def _mark(word: int, buffer: int, region: int, older: bool = True) -> int:
    return paired_word(word & ~paired_word(0, region=1), buffer=buffer, region=region, older=older)


def _roll(asm: Phases, steps: Sequence[tuple[int, ...]]) -> None:
    """Emit steps one after the other, what repeats itself as a loop."""
    at = 0
    while at < len(steps):
        length, times = max(((n, _times(steps, at, n)) for n in range(1, (len(steps) - at) // 2 + 1)),
                            key=lambda x: x[0] * (x[1] - 1), default=(1, 1))
        body = steps[at:at + length] if times > 1 else steps[at:at + 1]
        if times > 1:
            with asm.loop(times):
                _emit(asm, body)
        else:
            _emit(asm, body)
        at += len(body) * times if times > 1 else 1


def _times(steps: Sequence[tuple[int, ...]], at: int, length: int) -> int:
    """How often the next ``length`` steps come in a row."""
    body, times = steps[at:at + length], 1
    while steps[at + times * length:at + (times + 1) * length] == body:
        times += 1
    return times


def _emit(asm: Phases, steps: Sequence[tuple[int, ...]]) -> None:
    for step in steps:
        for word in step:
            asm.emit(word)
