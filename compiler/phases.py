"""The phases of a rule as sweeps.

A pair of samples (a, b) runs forward side by side; the echoes (a+, a-), (b+, b-) and the un-nudged copy (a, b) then
run back in lock-step, so that every input row is read once per direction. The kick after the last step is never
computed: no read-out sees it and the echo would undo it.
"""

from collections.abc import Sequence

from echolith.compiler.assembler import Assembler
from echolith.compiler.isa import Context, Dest, Field, Opcode, Setting, exec_word, loop_word, paired_word
from echolith.compiler.kinetic import Drift
from echolith.compiler.sweep import Sweep

__all__ = ["Phases", "moves"]


class Phases(Assembler):
    """What every entry is made of."""

    order: tuple[str, str] = ("", "")  # of the sweeps of the first step and of others, where there is a choice
    counting = False  # whether un-nudged pairs accumulate gradients too
    parting = False  # whether both slots of a pair are echoes of one sample

    def units(self, context: int, **options: bool) -> None:
        """All states at once, without a force."""
        self.place(first=0)
        self.change(Setting.LENGTH, self.s.units)
        self.emit(exec_word(Opcode.UNITS, context, **options))

    def drift(self, context: int, echo: bool) -> None:
        """The last drift undone; an echo starts at the un-nudged copy with its nudge."""
        for d in self.s.drifts:
            self.place(first=d.first)
            self.change(Setting.LENGTH, d.length)
            options = self.starting(d) if echo else {"reverse": True, "drift": True, "mass": self.counting and d.mass}
            self.emit(exec_word(Opcode.UNITS, context, drift_kind=d.kind, **options))

    def first_drifts(self) -> None:
        """From rest nothing moves, but masses may be told of it."""
        for d in self.s.drifts:
            if d.mass:
                self.place(first=d.first)
                self.change(Setting.LENGTH, d.length)
                self.emit(exec_word(Opcode.UNITS, Context.PAIR, drift_kind=d.kind, drift=True, mass=True))

    @staticmethod
    def starting(d: Drift) -> dict[str, bool]:
        """Options of the last drift undone, at the start of an echo."""
        return {"reverse": True, "nudge": True, "drift": True, "spread": True, "echo": True, "mass": d.mass}

    def fetch(self) -> None:
        """This row's inputs and, if there is a drive, its sum."""
        if self.s.inputs:
            self.set(Setting.LENGTH, self.s.inputs)
            self.emit(exec_word(Opcode.FETCH))
        for name, row in self.s.drives.items():
            self.use(name)
            self.place(source=0, drive=row, repeat=0)
            self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.DRIVE, source=True))

    def fetch_target(self) -> None:
        """This row's target; with the cost at the last row, that of the sample."""
        self.row(self.s.record.target)
        self.change(Setting.LENGTH, self.s.outputs)
        self.emit(paired_word(exec_word(Opcode.FETCH, target=True), tile=self.s.hardware.paired))
        self.row(-self.s.record.target)

    def row(self, places: int) -> None:
        self.emit(loop_word(Opcode.ROW, places))

    # -- phases ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Before a loop over `force`, so that a force of one block need not point at it in every round."""
        first = next((s.block for s in self.s.sweeps if s.block), "")
        if first and not self.s.hardware.general:
            self.use(first)

    def force(self, context: int, reverse: bool = False, nudge: bool = False, feed: bool = True) -> None:
        """One evaluation of the force with its kicks and the drift; in an echo also with its gradients."""
        echo = context != Context.PAIR or self.counting
        start = self.block
        if context == Context.PAIR and feed:
            self.pair(self.s.feeds, echo=False)
        for sweep in self.s.sweeps:
            if echo or not sweep.echo_only:
                self.sweep(sweep, context, echo, reverse, nudge)
        if self.block != start and not self.s.hardware.general:
            self.use(start)

    def sweep(self, s: Sweep, context: int, echo: bool, reverse: bool, nudge: bool) -> None:
        if s.block and (s.block != self.block or (self.s.hardware.general and Setting.BASE not in self.known)):
            self.use(s.block)
        if s.opcode == Opcode.FORWARD:
            self.place(tile=s.tile, place=s.place, drive=s.drive, repeat=s.repeat, **self.columns(s))
        elif s.opcode == Opcode.OUTER:
            self.place(tile=s.tile, repeat=s.repeat, **self.columns(s))
        else:
            self.place(first=s.first, second=s.second, place=s.place, tile=s.tile)
            if s.opcode == Opcode.UNITS:
                self.set(Setting.LENGTH, s.length)
            else:
                self.place(repeat=s.repeat)
        self.emit(self.word(s, context, echo, reverse, nudge))

    def word(self, s: Sweep, context: int, echo: bool, reverse: bool, nudge: bool) -> int:
        """A sweep's execution word. The second echo has row operands of its own where sweeps overlap."""
        region = int(self.s.hardware.paired and context == Context.ECHO_B)
        if s.opcode == Opcode.FORWARD:
            dest = Dest.DRIVE if s.kept else Dest.VALUE if s.value else Dest.HIDDEN
            word = exec_word(Opcode.FORWARD, context, dest, s.kind, echo=echo and s.rows, source=s.input,
                             gather=s.gather)
            return paired_word(word, region=region)
        if s.opcode == Opcode.OUTER:
            return paired_word(exec_word(Opcode.OUTER, context, source=s.input, gather=s.gather), region=region)
        kicks, parts = not s.value and not s.rows, s.drift and (context != Context.PAIR or self.parting)
        word = exec_word(Opcode(s.opcode), context, kind=s.kind, value=s.value, rows=s.rows, maximum=s.maximum,
                         force=s.force, drift=s.drift, drift_kind=s.drift_kind, mass=echo and s.mass,
                         echo=parts or echo and s.rows, reverse=reverse and kicks,
                         nudge=nudge and s.drift or s.contrast, learn=echo and s.learn, gather=s.gather,
                         gather_second=s.gather_second)
        return paired_word(word, region=region)

    @staticmethod
    def columns(s: Sweep) -> dict[str, int]:
        """The setting of a column operand's place."""
        return {"first": s.first} if s.gather else {"source": s.source}

    def readout(self, learn: bool, target: bool) -> None:
        """Outputs to the results; with ``learn`` the readout's own gradient and the leading bit of the cost."""
        if "readout" not in self.s.blocks:
            self.units(Context.PAIR, emit=True, check=False)
            return
        if target:
            self.fetch_target()
        self.pair(self.s.reads, echo=False)
        if learn:
            self.level()
        self.use("readout")
        self.place(source=self.s.source, tile=0, repeat=0)
        self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, emit=True))
        if learn and not self.s.backs:
            self.emit(exec_word(Opcode.OUTER, Context.PAIR))

    def level(self) -> None:
        """What all outputs together contribute to every one's cost, left in the drive memory at DRIVE."""
        self.pair(self.s.levels, echo=False)

    def pair(self, sweeps: Sequence[Sweep], echo: bool) -> None:
        """Sweeps of the un-nudged copies; ``echo``: with gradients and what they need."""
        for sweep in sweeps:
            self.sweep(sweep, Context.PAIR, echo, reverse=False, nudge=False)

    def forward(self, learn: bool, echo_only: bool = False, last: bool = True) -> None:
        """All rows from the zero state; ends at the last read-out point, before its read-out if not ``last``."""
        self.emit(loop_word(Opcode.NEXT))
        self.way_there(learn, echo_only)
        if last and not echo_only:
            self.readout(learn, learn)

    def way_there(self, learn: bool, echo_only: bool = False) -> None:
        """From the zero state to the last read-out point."""
        d = self.s.dynamics
        every = d.cost_at == "every" and not echo_only
        self.units(Context.PAIR, clear=True)
        if self.counting:
            self.first_drifts()
        if d.steps > 1:
            with self.loop(d.steps - 1):
                self.fetch()
                self.prepare()
                self.substeps(d.substeps - 1)
                if every:
                    self.readout(learn, learn)
                    self.prepare()
                self.force(Context.PAIR)
                self.row(self.s.record.row)
        self.fetch()
        self.prepare()
        self.substeps(d.substeps - 1)

    def substeps(self, count: int) -> None:
        if count:
            with self.loop(count):
                self.force(Context.PAIR)

    @property
    def keeps(self) -> bool:
        """Whether cost derivatives of all read-outs wait for the echoes on the chip."""
        s = self.s
        words = 2 * s.outputs * s.dynamics.steps << s.hardware.paired
        return s.dynamics.cost_at == "every" and not s.backs and not s.errors and words <= s.hardware.depths.deltas

    def kept_nudge(self) -> None:
        """As `nudge`, with the derivatives kept from the free phase, where the un-nudged copy would be again."""
        self.use("readout")
        self.place(tile=0, first=0, repeat=0)
        self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, echo=True, nudge=True))
        self.emit(exec_word(Opcode.TRANSPOSED, Context.PAIR, 1))

    def nudge(self) -> None:
        """Cost derivatives at the un-nudged copy, scaled to the wanted response, back to the units. Taken there and
        not at the echoes, they do not change with the nudge: a quadratic cost stays exact at any strength."""
        self.pair(self.s.reads, echo=True)
        self.level()
        self.use("readout")
        self.place(source=self.s.source, tile=0, first=0, repeat=0)
        self.emit(exec_word(Opcode.FORWARD, Context.PAIR, Dest.COST, echo=True))
        if self.s.backs:
            self.pair(self.s.backs, echo=True)
            self.use("nudge")
            walks = -(-self.s.units // self.s.hardware.lanes)
            self.place(first=0, tile=self.s.backs[-1].tile, repeat=walks - 1)
        self.emit(exec_word(Opcode.TRANSPOSED, Context.PAIR, 1))

    def spread(self, echoes: Sequence[int], kept: bool) -> None:
        """From the last read-out point to the starts of the echoes."""
        if kept:
            self.kept_nudge()
        else:
            self.nudge()
        for context in echoes:
            self.drift(context, True)

    def reverse(self, echoes: Sequence[int], copy: bool) -> None:
        """From the last read-out point back to the start, then the exact-return check of the un-nudged copy."""
        if echoes:
            self.spread(echoes, kept=self.keeps and not copy)
        if copy:
            self.drift(Context.PAIR, False)
        self.retrace((*echoes, Context.PAIR) if copy else tuple(echoes))
        if copy:
            self.check()

    def check(self) -> None:
        """The un-nudged copy must be at rest; if it is not, its state is left for the host to see."""
        self.units(Context.PAIR, check=True)
        self.guard()

    def retrace(self, contexts: Sequence[int]) -> None:
        """All steps back, from behind the last drift undone; nudges come from the un-nudged copy, if it is there."""
        d = self.s.dynamics
        every = d.cost_at == "every" and len(contexts) > 1
        self.prepare()
        self.back_substeps(contexts, d.substeps - 1)
        if d.steps > 1:
            with self.loop(d.steps - 1):
                self.row(-self.s.record.row)
                self.fetch()
                if every and Context.PAIR in contexts:
                    self.fetch_target()
                    self.nudge()
                elif every:
                    self.kept_nudge()
                self.prepare()
                self.back(contexts, every)
                self.back_substeps(contexts, d.substeps - 1)

    def back_substeps(self, contexts: Sequence[int], count: int) -> None:
        if count:
            with self.loop(count):
                self.back(contexts)

    def back(self, contexts: Sequence[int], nudge: bool = False) -> None:
        """One step of all copies. Where sweeps overlap, their commands alternate: while the results of one copy are on
        their way, the array works on another. Two copies at a time can have row operands."""
        if self.s.errors and len(contexts) > 1:
            self.back_stacked(contexts, nudge)
            return
        if not self.s.hardware.overlap or self.s.hardware.general or len(contexts) == 1:
            for context in contexts:
                self.force(context, True, nudge and context != Context.PAIR)
            return
        first, second, *copy = contexts
        for context, forward in ((first, True), (second, True), (first, False), *((c, True) for c in copy),
                                 (second, False), *((c, False) for c in copy)):
            for sweep in self.s.sweeps:
                if (sweep.opcode == Opcode.FORWARD) == forward and (context != Context.PAIR or not sweep.echo_only):
                    self.sweep(sweep, context, context != Context.PAIR, True, nudge and context != Context.PAIR)

    def back_stacked(self, contexts: Sequence[int], nudge: bool) -> None:
        """One step of a stack. All contrasts are those of the step's positions; then what follows from them at the
        un-nudged pair, the nudges of the layers below, and the kicks of all layers. A read-out's nudges kick alone."""
        echoes = [c for c in contexts if c != Context.PAIR]
        if nudge:
            for context in echoes:
                self.place(first=0)
                self.change(Setting.LENGTH, self.s.units)
                self.emit(exec_word(Opcode.UNITS, context, reverse=True, nudge=True))
        self.pair(self.s.feeds, echo=False)
        for context in echoes:
            for sweep in self.s.copies:
                self.sweep(sweep, context, False, False, False)
                self.words[-1] |= 1 << Field.SPREAD
            for sweep in self.s.sweeps:
                if not moves(sweep):
                    self.sweep(sweep, context, True, False, False)
        self.pair(self.s.errors, echo=True)
        if self.s.lower:
            self.use("nudge")
            walks = -(-self.s.lower // self.s.hardware.lanes)
            self.place(first=0, tile=self.s.errors[-1].tile, repeat=walks - 1)
            self.emit(exec_word(Opcode.TRANSPOSED, Context.PAIR, 1))
        for context in echoes:
            for sweep in self.s.sweeps:
                if moves(sweep):
                    self.sweep(sweep, context, True, True, sweep.first < self.s.lower)
        if len(echoes) < len(contexts):
            self.force(Context.PAIR, True, feed=False)


def moves(s: Sweep) -> bool:
    """Whether a sweep kicks momenta or moves positions."""
    kicks = s.opcode == Opcode.TRANSPOSED and not s.value and not s.rows
    return kicks or s.force or s.drift
