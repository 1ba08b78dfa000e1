"""Cycles from GO to DONE, known before simulation: what the sequencer does with a program, sweep by sweep."""

from dataclasses import dataclass, field

from echolith.compiler.design import Hardware
from echolith.compiler.isa import VARIANT, Context, Dest, Field, Opcode, Pairing, Setting, tile_rows
from echolith.compiler.timing import Tails, ahead, drained, fetched, follows, handed, reuse, tails

__all__ = ["cycles"]

EXECUTE = 2  # cycles from a word's decoding to the next one's reading
FETCHING = 2  # further cycles of FETCH: a line is asked for a cycle after the start, and between the samples
RECENT = 5  # cycles behind its end in which it matters when something was over
DECIDE = 1  # cycle from the decision that a sweep may start to the start


def _walk(word: int, s: list[int], hw: Hardware) -> int:
    """Cycles in which a sweep goes over its addresses."""
    opcode, columns, tiles, length = word >> 28, _columns(word, s, hw), s[Setting.TILES], s[Setting.LENGTH]
    leave = drained(hw, word >> Field.DEST & 3, _rows(s, hw))
    walks = s[Setting.REPEAT] + 1 if hw.repeat else 1
    if opcode == Opcode.FORWARD:
        if hw.paired:  # the last tile's sums leave while the next sweep begins
            return (0 if word >> Pairing.TILE & 1 else tiles - 1) * max(columns, leave) + columns
        return walks * tiles * max(columns, leave)
    if opcode == Opcode.OUTER:
        columns *= 2 if hw.packed else 1  # products of one lane, then of the other
        return walks * tiles * (max(columns, reuse(hw)) if hw.repeat else columns)
    if opcode == Opcode.TRANSPOSED:
        columns -= columns % 2 if hw.packed else 0
        return walks * columns * (tiles if hw.burst else max(tiles, 2))
    if opcode == Opcode.FETCH:
        return 2 * length + FETCHING
    return 2 * length * (tiles if opcode == Opcode.UPDATE else 1)


def _rows(s: list[int], hw: Hardware) -> int:
    """Of a tile."""
    return tile_rows(s[Setting.ROWS]) if hw.paired else hw.lanes


def _columns(word: int, s: list[int], hw: Hardware) -> int:
    """Columns that a sweep of the array goes over."""
    opcode, columns = word >> 28, s[Setting.COLUMNS]
    if _kept(word):
        return 1
    if not hw.paired or opcode == Opcode.TRANSPOSED or not word >> Field.SOURCE & 1:
        return columns
    return s[Setting.EXTRA] + (columns if opcode == Opcode.OUTER else 0)


def _kept(word: int) -> bool:
    """Whether a sweep's results are not of its sums."""
    return word >> 28 == Opcode.FORWARD and bool(word >> Field.NUDGE & 1)


def _tail(word: int, t: Tails) -> int:
    """Cycles from there until the last of its results is written."""
    opcode, dest = word >> 28, word >> Field.DEST & 3
    if opcode == Opcode.FORWARD:
        return {Dest.DRIVE: t.drive, Dest.HIDDEN: t.hidden, Dest.COST: t.cost, Dest.VALUE: t.value}[Dest(dest)]
    if opcode == Opcode.TRANSPOSED:
        if dest & 1 and not word >> Field.SPREAD & 1:
            return t.nudge
        return _result(word, t.step, t.step_value, t.step_rows)
    if opcode == Opcode.UNITS:
        return _result(word, t.units, t.units_value, t.units_rows)
    return {Opcode.OUTER: t.outer, Opcode.UPDATE: t.update, Opcode.FETCH: t.fetch}[Opcode(opcode)]


def _taken(word: int, t: Tails) -> int:
    """Cycles from the end of a FORWARD sweep's addresses until the row unit takes another's sums."""
    return {Dest.DRIVE: t.drive_taken, Dest.HIDDEN: t.hidden_taken, Dest.COST: t.cost_taken,
            Dest.VALUE: t.value}[Dest(word >> Field.DEST & 3)]


def _result(word: int, step: int, value: int, rows: int) -> int:
    """The tail by what becomes of a pass's results."""
    return rows if word >> Field.ROWS & 1 else value if word >> Field.VALUE & 1 else step


@dataclass
class _Left:
    """A counter of the scoreboard: zero from cycle ``end`` on, loaded with ``tail`` at the end of a sweep's walk."""

    end: int = 0
    tail: int = 0

    def below(self, limit: int) -> int:
        """First cycle in which a sweep may start that wants at most ``limit`` cycles left."""
        return 0 if self.tail <= limit else self.end - limit + 1

    def after(self, now: int) -> "_Left":
        return _Left(max(self.end - now, 0), self.tail if self.end > now else 0)


@dataclass
class _Flight:
    """`rtl.scoreboard`, by cycles: when the array is free, and when nothing of the kind is on its way any more."""

    walk: int = 0
    alone: _Left = field(default_factory=_Left)
    rows: _Left = field(default_factory=_Left)
    units: _Left = field(default_factory=_Left)
    lanes: _Left = field(default_factory=_Left)
    feed: _Left = field(default_factory=_Left)  # a FETCH beside other sweeps
    taken: tuple[int, int] = (0, 0)  # the row unit has the FORWARD sweep before the last, the last
    moving: int = 0  # context in the neuron unit
    written: tuple[int, int] = (0, 0)  # the regions of row operands

    @property
    def idle(self) -> int:
        return max(self.walk, self.quiet, self.lanes.end)

    @property
    def quiet(self) -> int:
        return max(*self.written, *(x.end for x in (self.alone, self.rows, self.units, self.feed)))

    @property
    def still(self) -> int:
        return max(self.walk, self.alone.end)

    def after(self, now: int) -> "_Flight":
        """Relative to ``now``; what is over is at 0."""
        def left(cycle: int) -> int:
            return max(cycle - now, 0)

        units = self.units.after(now)
        return _Flight(left(self.walk), self.alone.after(now), self.rows.after(now), units, self.lanes.after(now),
                       self.feed.after(now), (left(self.taken[0]), left(self.taken[1])),
                       self.moving if units.end else 0, (left(self.written[0]), left(self.written[1])))

    def later(self, cycles: int) -> "_Flight":
        def moved(x: _Left) -> _Left:
            return _Left(x.end + cycles, x.tail)

        return _Flight(self.walk + cycles, moved(self.alone), moved(self.rows), moved(self.units), moved(self.lanes),
                       moved(self.feed), (self.taken[0] + cycles, self.taken[1] + cycles), self.moving,
                       (self.written[0] + cycles, self.written[1] + cycles))

    def ready(self, word: int, s: list[int], hw: Hardware) -> int:
        """First cycle in which the sequencer may start a sweep."""
        if not hw.overlap or _alone(word, hw):
            return DECIDE + self.idle + 2
        if word >> 28 == Opcode.FETCH:
            return DECIDE + max(self.alone.below(0), self.feed.below(0))
        opcode, context = word >> 28, word & 3
        if opcode == Opcode.UNITS and hw.paired:
            return DECIDE + max(self.alone.below(0), self.units.below(0))
        there = 0
        if (opcode == Opcode.TRANSPOSED or not word >> Field.SOURCE & 1) and context == self.moving:
            biased = opcode == Opcode.OUTER or word >> Field.DEST & 3 == Dest.COST
            there = self.units.below(0 if hw.general else max(s[Setting.COLUMNS] - 1 - biased, 0))
        operands = self.written[_region(word, hw)] + 1
        if opcode == Opcode.FORWARD and word >> Field.DEST & 3 == Dest.DRIVE:
            operands = self.feed.below(0)
        if opcode == Opcode.FORWARD and word >> Field.DEST & 3 == Dest.COST:
            operands = max(operands, self.feed.below(0))
        return max(self.walk - 1, DECIDE + self.alone.below(0), *(DECIDE + cycle for cycle in {
            Opcode.FORWARD: (there, operands, self.taken[not hw.paired] + 1, self.rows.below(_columns(word, s, hw))),
            Opcode.OUTER: (there, operands, self.lanes.below(0)),
            Opcode.TRANSPOSED: (operands, self.units.below(follows(hw) if s[Setting.COLUMNS] > follows(hw) + 1 else 0)),
            Opcode.UNITS: (self.units.below(0),)}[Opcode(opcode)]))

    def launch(self, word: int, start: int, s: list[int], hw: Hardware) -> None:
        """A sweep starts: the strobe is in cycle ``start``."""
        opcode, context, t = word >> 28, word & 3, tails(hw, _rows(s, hw))
        if _beside(word, hw):
            left = _Left(start + _walk(word, s, hw) + 1 + _tail(word, t), _walk(word, s, hw) + _tail(word, t))
            if opcode == Opcode.FETCH:
                self.feed = left
            if _alone(word, hw):
                self.alone = left
            elif opcode == Opcode.UNITS:
                self.units = left
            self.moving = context if opcode == Opcode.UNITS else self.moving
            return
        self.walk = start + _walk(word, s, hw) + 1
        tail = _tail(word, t)
        if opcode == Opcode.TRANSPOSED and hw.burst and s[Setting.TILES] == 1:
            tail += s[Setting.COLUMNS] - 1
        left = _Left(self.walk + tail, tail)
        if opcode == Opcode.FORWARD:
            self.taken = self.taken[1], start + _columns(word, s, hw) + handed(hw)
        if not hw.overlap or _alone(word, hw):
            self.alone = left
        elif opcode == Opcode.FORWARD:
            taken = _taken(word, t)
            self.rows = _Left(self.walk + taken, taken)
            if word >> Field.DEST & 3 != Dest.DRIVE:
                first, second = self.written
                there = left.end - ahead(hw, _rows(s, hw))
                self.written = (first, there) if _region(word, hw) else (there, second)
        elif opcode == Opcode.OUTER:
            self.lanes = left
        else:
            self.units, self.moving = left, context


def _region(word: int, hw: Hardware) -> int:
    """Of the row operands that a sweep writes or reads."""
    return word >> Pairing.REGION & 1 if hw.paired else int(word & 3 == Context.ECHO_B)


def _alone(word: int, hw: Hardware) -> bool:
    """Whether a sweep wants nothing else on its way."""
    opcode = word >> 28
    clear = 0 if hw.paired else 1 << Field.CLEAR
    if opcode == Opcode.UNITS and word & (1 << Field.EMIT | clear | 1 << Field.CHECK):
        return True
    if hw.general and opcode == Opcode.FORWARD and word >> Field.DEST & 3 == Dest.VALUE:
        return True
    if hw.general and opcode in (Opcode.TRANSPOSED, Opcode.UNITS) and word & (1 << Field.VALUE | 1 << Field.ROWS):
        return True
    if hw.depths.index and opcode in (Opcode.FORWARD, Opcode.OUTER) and word >> Field.GATHER & 1:
        return True
    if hw.depths.index and opcode in (Opcode.TRANSPOSED, Opcode.UNITS) and word >> Field.GATHER & 3:
        return True
    return opcode == Opcode.UPDATE or (opcode == Opcode.FETCH and not (hw.paired and word >> Pairing.TILE & 1))


def _beside(word: int, hw: Hardware) -> bool:
    """Whether the sweep engine has no part in it."""
    opcode = word >> 28
    return opcode == Opcode.FETCH or (hw.paired and opcode == Opcode.UNITS)


class _Walk:
    """The sequencer, cycle by cycle; ``now`` is that in which it reads the next word."""

    def __init__(self, program: tuple[int, ...], hw: Hardware, pairs: int):
        self.program, self.hw, self.pairs = program, hw, pairs
        self.settings, self.flight, self.now = [0] * len(Setting), _Flight(), fetched(hw)
        self.last = False  # of the pairs

    def run(self, pc: int) -> int:
        """Go on from ``pc`` to the END or HALT that closes it; returns that word's index."""
        while True:
            word = self.program[pc]
            opcode, value = Opcode(word >> 28), word & 0xFFFFFF
            self._carry_out(word, opcode)
            if opcode in (Opcode.HALT, Opcode.END):
                return pc
            if opcode == Opcode.GUARD and word >> VARIANT & 1 and self.last:
                self.now += fetched(self.hw)
                return self.run(value)
            if opcode in (Opcode.LOOP, Opcode.PAIRS):
                pc = self._loop(pc + 1, value, opcode == Opcode.PAIRS)
                if self.program[pc] >> 28 == Opcode.HALT:
                    return pc
            elif opcode == Opcode.SET:
                self.settings[word >> 24 & 15] = value
            pc += 1

    def _carry_out(self, word: int, opcode: Opcode) -> None:
        decode = self.now + 1
        if opcode >= Opcode.FETCH:
            start = max(decode + 1 + self.hw.overlap + DECIDE, self.flight.ready(word, self.settings, self.hw))
            self.flight.launch(word, start, self.settings, self.hw)
            self.now = start + 1
            return
        if opcode == Opcode.NEXT and self.hw.paired:
            decode = max(decode, self.flight.quiet + 1)
        elif opcode in (Opcode.HALT, Opcode.NEXT) or (opcode == Opcode.GUARD and not word >> VARIANT & 1):
            decode = max(decode, self.flight.idle + 1)
        elif opcode == Opcode.SET and self.hw.paired and word >> 24 & 15 != Setting.RATE:
            pass
        elif opcode == Opcode.SET or (opcode == Opcode.ROW and not self.hw.paired):
            decode = max(decode, self.flight.still + 1)
        self.now = decode + EXECUTE + (1 + fetched(self.hw) if opcode == Opcode.NEXT else 0)

    def _loop(self, pc: int, count: int, pairs: bool) -> int:
        """As many rounds as it takes to find what all others take: settings inside a loop are constants, and what is
        on its way when a round begins is soon the same in each."""
        before, spent, end = None, 0, pc
        count = self.pairs if pairs else count
        while count:
            begun, state = self.now, (self.flight.after(self.now - RECENT), list(self.settings))
            if state == before and count > pairs:
                self._skip((count - pairs) * spent)
                count = int(pairs)
                continue
            self.last = count == 1 if pairs else self.last
            end, before = self.run(pc), state
            if self.program[end] >> 28 == Opcode.HALT:
                return end
            self.now += fetched(self.hw)
            spent, count = self.now - begun, count - 1
        self.now -= fetched(self.hw)  # the last round goes on behind its END
        return end

    def _skip(self, cycles: int) -> None:
        recent = self.now - RECENT
        self.flight, self.now = self.flight.after(recent).later(recent + cycles), self.now + cycles


def cycles(program: tuple[int, ...], entry: int, hw: Hardware, pairs: int = 1) -> int:
    """Cycles of a run without stalls and without raised flags."""
    walk = _Walk(program, hw, pairs)
    walk.run(entry)
    return walk.now
