"""A pair of samples runs forward beside the echoes of the pair before it: while the results of one sweep are on their
way, the array works for another copy."""

from collections.abc import Iterator
from dataclasses import dataclass

from echolith.compiler.isa import VARIANT, Context, Dest, Opcode, Setting, exec_word, loop_word, paired_word
from echolith.compiler.phases import Phases
from echolith.compiler.roll import roll
from echolith.compiler.rows import Fill, Rows
from echolith.compiler.sweep import Sweep

__all__ = ["Paired"]

_ECHOES = (Context.ECHO_A, Context.ECHO_B)


@dataclass(frozen=True)
class _Net:
    """Words of one force of each copy."""

    forward: dict[int, int]  # by context
    outer: int | None
    back: dict[int, int]


class Paired(Phases):
    """Needs `Hardware.paired`, one coupling beside its drive, and no un-nudged copy."""

    @property
    def can_pair(self) -> bool:
        s = self.s
        if not s.hardware.paired or not s.hardware.learn or "readout" not in s.blocks:
            return False
        if s.dynamics.cost_at != "last" and not self.keeps:
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
        """From the first pair forward to the last pair back."""
        self.forward(learn=True, last=False)
        with self.loop(None):
            self._cost()
            last = self.emit(0)
            self.emit(loop_word(Opcode.NEXT))
            self._together()
        self.words[last] = loop_word(Opcode.GUARD, len(self.words)) | 1 << VARIANT
        self.known.clear()
        for context in _ECHOES:
            self.drift(context, True)
        self.retrace(_ECHOES)

    def _cost(self) -> None:
        """The read-out with its gradient, and the nudges; what comes of one sweep is waited for beside another."""
        self.fetch_target()
        self.use("readout")
        for word, region in ((exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, emit=True), 0),
                             (exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, echo=True, nudge=self.keeps), 1),
                             (exec_word(Opcode.OUTER, Context.PAIR), 0),
                             (exec_word(Opcode.TRANSPOSED, Context.PAIR, 1), 1)):
            self.emit(paired_word(word, region=region))

    def _together(self) -> None:
        """The older pair's echoes, and the next pair, which starts from zero."""
        block, d = self.s.sweeps[0].block, self.s.dynamics
        coupling, drive = self.s.blocks[block], self.s.blocks[next(iter(self.s.drives))]
        self.point(coupling, coupling.columns, drive.columns)
        self.block = block
        rows = Rows(d, self.tiles(coupling), self.s.record.row)
        fills = rows.fills()
        steps = list(self._steps(rows, [fill for fill in fills if fill.due]))
        self._started([word for fill in fills if not fill.due for piece in fill.words for word in piece], steps[0][:1])
        roll(self, list(filter(None, [steps[0][1:], *steps[1:]])))
        if rows.top < d.steps - 1:  # no force sees the last row
            self.row(self.s.record.row)

    def _started(self, rows: list[int], first: tuple[int, ...]) -> None:
        """The first rows made ready, and every copy at its start; echo A's first sweep does not wait for the others."""
        self.change(Setting.LENGTH, self.s.inputs)
        for word in rows:
            if word >> 28 != Opcode.FORWARD:
                self.emit(word)
        self.drift(_ECHOES[0], True)
        for word in (*(word for word in rows if word >> 28 == Opcode.FORWARD), *first):
            self.emit(word)
        self.drift(_ECHOES[1], True)
        self.units(Context.PAIR, clear=True)
        self.change(Setting.LENGTH, self.s.inputs)

    def _steps(self, rows: Rows, fills: list[Fill]) -> Iterator[tuple[int, ...]]:
        """Words of every step: echo A, the second half of echo B's step before, the next pair, the rest of A, the first
        half of B. Every FORWARD takes the region of row operands that the one before the last has left."""
        net = self._net()
        for step in range(rows.count + 1):
            found: list[int] = []
            a, n, b = (3 * step + i & 1 for i in range(3))
            if step < rows.count:
                found.append(_mark(net.forward[Context.ECHO_A], rows.older_buffer(step), a))
            if step:
                found += _second(net, Context.ECHO_B, rows.older_buffer(step - 1), 3 * step - 1 & 1, fills, step)
            if step < rows.count:
                found.append(_mark(net.forward[Context.PAIR], rows.next_buffer(step), n, older=False))
                found += _second(net, Context.ECHO_A, rows.older_buffer(step), a, fills, step)
                found += [_mark(net.forward[Context.ECHO_B], rows.older_buffer(step), b),
                          _mark(net.back[Context.PAIR], 0, n, older=False), *_filled(fills, step, step + 1)]
            yield tuple(found)

    def _net(self) -> _Net:
        first, *outers, last = self.s.sweeps
        contexts = (Context.PAIR, *_ECHOES)

        def word(s: Sweep, context: int) -> int:
            return self.word(s, context, context != Context.PAIR, context != Context.PAIR, False)

        outer = exec_word(Opcode.OUTER, source=any(s.input for s in outers)) if outers else None
        return _Net({c: word(first, c) for c in contexts}, outer, {c: word(last, c) for c in contexts})


def _second(net: _Net, context: int, buffer: int, region: int, fills: list[Fill], step: int) -> list[int]:
    """Outer products and the way back of an echo."""
    found = []
    if net.outer is not None:
        # Echo B's belong to the step before: only then are the older pair's inputs of that step no more needed.
        opened = step - (context == Context.ECHO_B)
        found += [_mark(net.outer | context, buffer, region), *_filled(fills, opened, step)]
    return [*found, _mark(net.back[context], buffer, region), *_filled(fills, step, step)]


def _filled(fills: list[Fill], opened: int, due: int) -> list[int]:
    """A piece of the most urgent row whose buffer was free by step ``opened``, and all that is left of rows due until
    step ``due``."""
    ready = sorted((f for f in fills if f.words and f.opens <= opened), key=lambda f: f.due)
    found: list[int] = []
    for fill in ready:
        found += fill.words.pop(0)
        if found[-1] >> 28 != Opcode.FETCH:  # a fetch takes no time of the array
            break
    for fill in ready:
        while fill.words and fill.due <= due:
            found += fill.words.pop(0)
    return found


def _mark(word: int, buffer: int, region: int, older: bool = True) -> int:
    return paired_word(word & ~paired_word(0, region=1), buffer=buffer, region=region, older=older)
