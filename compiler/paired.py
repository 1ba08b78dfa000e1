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


# Of every step: sweeps F(orward), O(uter) and T(ransposed) of echoes A and B and the next pair P, and where rows are
# made ready. Every FORWARD takes the region of row operands that the one before the last has left.
_FILL = "."
_ORDERS = ("FA OB . TB . FP OA . TA . FB TP", "FA OB . TB . FP OA TA . FB TP")
_FIRST = ("FA OA FP . TA . FB TP", "FA OA . FP TA FB TP")  # the next pair's positions may come late in the first step
_COPIES = {"P": Context.PAIR, "A": Context.ECHO_A, "B": Context.ECHO_B}
_TURN: dict[int, int] = {Context.ECHO_A: 0, Context.PAIR: 1, Context.ECHO_B: 2}


@dataclass(frozen=True)
class _Net:
    """Words of one force of each copy."""

    sweeps: dict[str, dict[int, int]]  # by letter and context

    def words(self, sweep: str, context: int, rows: Rows, step: int) -> list[int]:
        """Those of a sweep, if the copy has it."""
        older, word = context != Context.PAIR, self.sweeps[sweep].get(context)
        buffer = rows.older_buffer(step) if older else rows.next_buffer(step) if sweep == "F" else 0
        if word is None:
            return []
        word &= ~paired_word(0, region=1)
        return [paired_word(word, buffer=buffer, region=_region(step, context), older=older)]


def _region(step: int, context: int) -> int:
    """Of the row operands that a copy's force in a step uses."""
    return (3 * step + _TURN[context]) & 1


class Paired(Phases):
    """Needs `Hardware.paired`, one coupling beside its drive, and no un-nudged copy."""

    order = _ORDERS[0], _ORDERS[0]

    @property
    def orders(self) -> tuple[tuple[str, str], ...]:
        """Of the sweeps of the first step, and of every other."""
        return tuple((first, order) for order in _ORDERS for first in (order, *_FIRST)) if self.can_pair else ()

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
        self.fetch_target()
        self._cost()
        with self.loop(None):
            last = self.emit(0)
            self.emit(loop_word(Opcode.NEXT))
            self._spread()
            self._together()
        self.words[last] = loop_word(Opcode.GUARD, len(self.words)) | 1 << VARIANT
        self.known.clear()
        self._spread()
        self.drift(Context.ECHO_B, True)
        self.retrace(_ECHOES)

    def _cost(self, between: tuple[int, ...] = ()) -> None:
        """The read-out with its gradient; what comes of one sweep is waited for beside another."""
        self.use("readout")
        self._with_region(exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, emit=True), 1 - self._last_region)
        if between:
            self._use_coupling()
            for word in between:
                self.emit(word)
            self.use("readout")
        self._with_region(exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, echo=True, nudge=self.keeps),
                          self._last_region)
        self._with_region(exec_word(Opcode.OUTER, Context.PAIR), 1 - self._last_region)
        self.change(Setting.COLUMNS, self.s.units)  # a bias gives nothing back, and what echo A would move is no state

    def _spread(self) -> None:
        """The nudges; echo A starts with each as it comes."""
        options = self.starting(self.s.drifts[0])
        self._with_region(exec_word(Opcode.TRANSPOSED, _ECHOES[0], 1, **options), self._last_region)

    def _with_region(self, word: int, region: int) -> None:
        self.emit(paired_word(word, region=region))

    @property
    def _last_region(self) -> int:
        """That of echo B's last row operands."""
        return _region(self.s.dynamics.steps * self.s.dynamics.substeps - 2, Context.ECHO_B)

    def _use_coupling(self) -> None:
        self.block = self.s.sweeps[0].block
        coupling, drive = self.s.blocks[self.block], self.s.blocks[next(iter(self.s.drives))]
        self.point(coupling, coupling.columns, drive.columns)

    def _together(self) -> None:
        """The older pair's echoes, and the next pair, which starts from zero, to its cost."""
        d = self.s.dynamics
        rows = Rows(d, self.tiles(self.s.blocks[self.s.sweeps[0].block]), self.s.record.row)
        fills = rows.fills()
        *steps, end = self._steps(rows, [fill for fill in fills if fill.due])
        begin = steps.pop(0) if steps else ()
        due = [word for fill in fills if not fill.due for piece in fill.words for word in piece]
        self.change(Setting.LENGTH, self.s.inputs)
        for word in due:
            if word >> 28 != Opcode.FORWARD:
                self.emit(word)
        self._use_coupling()
        for word in (*(word for word in due if word >> 28 == Opcode.FORWARD), *begin[:1]):
            self.emit(word)
        self.drift(_ECHOES[1], True)
        self.units(Context.PAIR, clear=True)
        self.change(Setting.LENGTH, self.s.inputs)
        roll(self, list(filter(None, [begin[1:], *steps])))
        if rows.top < d.steps - 1:  # no force sees the last row
            self.row(self.s.record.row)
        self.fetch_target()
        self._cost(end)

    def _steps(self, rows: Rows, fills: list[Fill]) -> Iterator[tuple[int, ...]]:
        """Words of every step, in `order`; the second half of echo B's step is that of the step before."""
        net = self._net()
        for step in range(rows.count + 1):
            found: list[int] = []
            order = self.order[step > 0].split()
            for place, item in enumerate(order):
                if item == _FILL:
                    # While echo B's outer products go on, the older pair's inputs of the step before are needed.
                    found += _filled(fills, step - (order[place - 1] == "OB"), step)
                    continue
                sweep, context = item[0], _COPIES[item[1]]
                at = step - (context == Context.ECHO_B and sweep != "F")
                if 0 <= at < rows.count:
                    found += net.words(sweep, context, rows, at)
            if step < rows.count:
                found += _filled(fills, step, step + 1)
            yield tuple(found)

    def _net(self) -> _Net:
        first, *outers, last = self.s.sweeps
        contexts = (Context.PAIR, *_ECHOES)

        def word(s: Sweep, context: int) -> int:
            return self.word(s, context, context != Context.PAIR, context != Context.PAIR, False)

        outer = exec_word(Opcode.OUTER, source=any(s.input for s in outers))
        return _Net({"F": {c: word(first, c) for c in contexts}, "T": {c: word(last, c) for c in contexts},
                     "O": {c: outer | c for c in _ECHOES} if outers else {}})


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

