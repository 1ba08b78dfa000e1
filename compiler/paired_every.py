"""Pairs beside each other with the cost at every step: between the sweeps of a step come a read-out of the next pair,
and the nudges of the older one from the cost derivatives that it has kept."""

from collections.abc import Iterator

from echolith.compiler.isa import (
    VARIANT,
    Context,
    Dest,
    Field,
    Opcode,
    Pairing,
    Setting,
    exec_word,
    loop_word,
    paired_word,
    set_word,
)
from echolith.compiler.paired import Paired
from echolith.compiler.rows import Fill, Rows

__all__ = ["PairedEvery"]

_READ = exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, emit=True)
_KEPT = exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, echo=True, nudge=True)
_OWN = exec_word(Opcode.OUTER, Context.PAIR)
_NUDGE = exec_word(Opcode.TRANSPOSED, Context.PAIR, 1)


class PairedEvery(Paired):
    """Needs kept derivatives, else it does as `Paired`."""

    def _steps(self, rows: Rows, fills: list[Fill]) -> Iterator[tuple[int, ...]]:
        plain = super()._steps(rows, fills)
        if not self.keeps:
            yield from plain
            return
        substeps, place = self.s.dynamics.substeps, 0
        for step, words in enumerate(plain):
            found = [_nudged(w, Context.ECHO_B) if step and step % substeps == 0 else w for w in words]
            if step == 0 and rows.count >= substeps:
                found[1:1] = self._target(0, place)
            if step % substeps == substeps - 1 and step < rows.count:
                found = self._read(found, step // substeps + 1, place)
            place += sum(_moved(w) for w in words)
            yield tuple(found)

    def _read(self, words: list[int], after: int, place: int) -> list[int]:
        """A step with read-out and nudges; then the target of the row ``after`` is fetched; ``place`` is where the
        record's offset is before the step. Both sweeps leave row operands in one region: the nudges plain ones, the
        read-out scaled ones."""
        ahead = next(i for i, w in enumerate(words) if _is(w, Opcode.FORWARD, Context.PAIR) and _hidden(w))
        kick = next(i for i, w in enumerate(words) if _is(w, Opcode.TRANSPOSED, Context.ECHO_A))
        region = bool(words[ahead] >> Pairing.REGION & 1)
        there, back = self._pointed("readout"), self._pointed(self.s.sweeps[0].block)
        place += sum(_moved(w) for w in words[:kick])
        more = self._target(after, place) if after < self.s.dynamics.steps - 1 else []
        return [
            *words[:ahead], *there, paired_word(_READ, region=region), *back, *words[ahead + 1:kick],
            *there, paired_word(_KEPT, region=region, older=True), paired_word(_OWN, region=region),
            paired_word(_NUDGE, region=region), *back, *more,
            words[ahead], _nudged(words[kick], Context.ECHO_A), *words[kick + 1:],
        ]

    def _pointed(self, name: str) -> list[int]:
        """What differs between the read-out and the coupling."""
        def settings(block: str) -> dict[Setting, int]:
            b = self.s.blocks[block]
            return {Setting.BASE: b.base, Setting.COLUMNS: b.columns, Setting.TILES: self.tiles(b),
                    Setting.ROWS: self.rows(b), Setting.STRIDE: b.stride}

        before = settings(self.s.sweeps[0].block if name == "readout" else "readout")
        return [set_word(setting, value) for setting, value in settings(name).items() if before[setting] != value]

    def _target(self, row: int, place: int) -> list[int]:
        """Fetch the target of a row, from where the record's offset is."""
        there, s = row * self.s.record.row + self.s.record.target - place, self.s
        fetch = paired_word(exec_word(Opcode.FETCH, target=True), tile=True)
        sizes = [[], []] if s.inputs == s.outputs else [[set_word(Setting.LENGTH, n)] for n in (s.outputs, s.inputs)]
        return [*sizes[0], loop_word(Opcode.ROW, there), fetch, loop_word(Opcode.ROW, -there), *sizes[1]]


def _is(word: int, opcode: Opcode, context: Context) -> bool:
    return word >> 28 == opcode and word & 3 == context


def _hidden(word: int) -> bool:
    return word >> Field.DEST & 3 == Dest.HIDDEN


def _nudged(word: int, echo: Context) -> int:
    """A kick of this echo with its nudges."""
    return word | 1 << Field.NUDGE if _is(word, Opcode.TRANSPOSED, echo) else word


def _moved(word: int) -> int:
    """How far a word moves the next pair's offset."""
    if word >> 28 != Opcode.ROW or word >> VARIANT & 1:
        return 0
    return (word & 0xFFFFFF ^ 1 << 23) - (1 << 23)
