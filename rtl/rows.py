"""The way of a forward sweep's sums to row operands: drive, activation, cost derivative."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.inventory import TARGET_BITS
from echolith.compiler.isa import BUFFERS, Context, Dest
from echolith.compiler.timing import costed_stage, fetched, scaled
from echolith.rtl.command import Command, buffer, older, region, slot_sample
from echolith.rtl.kept import Kept
from echolith.rtl.kinds import Kinds, feed, kinds
from echolith.rtl.lane import row_write
from echolith.rtl.leading import Leading
from echolith.rtl.memory import Bank, make_bank
from echolith.rtl.pipeline import ElementPipeline, delay
from echolith.rtl.scale import EXPONENT_BITS, Scale, shift_amount
from echolith.sim import arith

__all__ = ["RowUnit"]


class RowUnit(wiring.Component):
    """One sum per cycle in, row operands, outputs and leading bits out.

    Sums come in order: slot a and b of lane 0, lane 1, ..., then the next tile. Both ends count, so that beside a sum
    only a few bits travel: ``valid``, ``real`` if its row exists, and whether a tile ends with it. With
    `Hardware.paired` another sweep's sums may follow at once: then the command travels too.

    Members
    -------
    command, rows : In
        Of the sweep whose sums come, from the cycle after ``start`` on.
    acc_next, acc, acc_b, acc_last : In
        The array's drain. `Hardware.paired`: sums of drives come with both slots at a time; the last of a tile is
        told.
    start : In(1)
        Its sums begin.
    next : In(1)
        A new pair of samples: forget the costs' leading bits.
    masked : In(2)
        Samples of the pair that have no cost.
    range, gain : In
        Response exponent R. Gradient words are 2^gain times finer; exponents are at least this.
    exponent_a, exponent_b : Out
        Nudge exponents of the samples.
    older_a, older_b : Out
        Those of the pair before; `Hardware.paired` only, as ``first``, the first row of the sweep that starts.
    leading : Out
        Magnitude bits of this cycle's free cost derivative.
    row_a, row_b, result_* : Out
        Operand writes; output words in order of rows, slot a before slot b.
    target_w_*, table_w_* : In
        Writes of targets and tables; tables of the activations come before those of the cost.

    In general hardware:

    tile, drive : In
        First tile of the operands written, and first row of the drives; held.
    mapped_valid, mapped : In
        Results of a pass that become operands, in place of activations.
    value_valid, value : Out
        Activations for the vectors, zero unless valid.
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        w = signed(hw.width)
        self.row_bits = (hw.depths.rows - 1).bit_length()
        self.output_bits = max(1, (hw.depths.outputs - 1).bit_length())
        even = {"acc_last": In(1)} if hw.paired else {}
        general = {"tile": In((hw.depths.tiles - 1).bit_length()), "drive": In(self.row_bits), "mapped_valid": In(1),
                   "mapped": In(w), "value_valid": Out(1), "value": Out(w)}
        paired = {"first": In(self.row_bits + 1), "older_a": Out(EXPONENT_BITS), "older_b": Out(EXPONENT_BITS)}
        super().__init__({
            "command": In(Command), "rows": In(self.row_bits + 1), "start": In(1), "next": In(1), "masked": In(2),
            "range": In(8), "gain": In(EXPONENT_BITS), "leading": Out(hw.width),
            "acc_next": In(1), "acc": In(signed(hw.accumulator)), "acc_b": In(signed(hw.accumulator)),
            "exponent_a": Out(EXPONENT_BITS), "exponent_b": Out(EXPONENT_BITS), **(paired if hw.paired else {}),
            "row_a": Out(row_write(hw)), "row_b": Out(row_write(hw)), "result_valid": Out(1), "result": Out(w),
            "target_w_en": In(1), "target_w_addr": In(self.output_bits + 1), "target_w_data": In(hw.target_bits),
            "table_w_addr": In(hw.segments), "table_w_data": In(hw.width), "table_w_half": In(1),
            "table_w_en": In(max(1, hw.tables)), **(general if hw.general else even),
        })

    def elaborate(self, platform):
        m = Module()
        row, slot, sample = Signal(self.row_bits + 1), Signal(), Signal()
        self._row = row
        m.d.comb += sample.eq(slot_sample(self.command.context, slot))
        with m.If(self.start):
            m.d.sync += [row.eq(self.first if self.hw.paired else 0), slot.eq(0)]
        with m.Elif(self.acc_next):
            both = (self.command.dest == Dest.DRIVE) if self.hw.paired else 0
            m.d.sync += [row.eq(row + (slot | both)), slot.eq(~(slot | both))]
        if self.hw.repeat:
            self._next_walk(m, row, slot)
        # Drives and targets are read in the cycle before the sum comes; behind an output register, the sum waits too.
        wait = fetched(self.hw)
        now = Cat(self.acc_next, self.acc_next & (row < self.rows))
        if self.hw.paired:
            now = Cat(now, self.acc_last)
        now = delay(m, now, wait, "now")
        self._acc, self._commands = delay(m, self.acc, wait - 1, "acc"), [self.command]
        place = Signal(self.row_bits + 1)
        m.d.comb += place.eq(Cat(sample, row))
        drive = self._drives(m, platform, place, now)
        activate = self._activation(m, drive)
        self._done = wait + activate.latency  # stage of activations
        self._command(m, self._done + scaled(self.hw) + 1)
        costing, other = self._command(m, self._done).dest == Dest.COST, now
        if self.hw.general:
            # Commands may follow each other at once: nothing of one may be taken for the next one's.
            now, other = (Mux(x, now, 0) for x in (self.command.dest[0], costing))
        if self.hw.cost is None:
            self._operands(m, delay(m, now, activate.latency, "at"), activate.t)
            return m
        cost = self._cost(m, place, drive)
        late = self._ends(m, other, cost.latency if self.hw.general else max(activate.latency, cost.latency))
        ends = self._ends(m, now, activate.latency) if self.hw.general else late
        emits = self._command(m, wait + cost.ready["y"])
        m.d.comb += [self.result.eq(cost.y),
                     self.result_valid.eq(late[cost.ready["y"]][1] & (emits.dest == Dest.COST) & emits.emit)]
        costed = costed_stage(self.hw)
        at = Mux(costing, late[costed], ends[activate.latency])
        if self.hw.learn:
            delta = delay(m, cost.delta, costed - cost.latency, "delta")
            self._kept = self._keep(m, platform, costed) if self.hw.depths.deltas else None
            self._learn(m, at, activate.t, delta, costing)
        else:
            self._operands(m, at, activate.t)
        return m

    def _command(self, m: Module, stage: int):
        """That of the sums whose strobe was ``stage`` cycles before."""
        if not self.hw.paired:
            return self.command
        while len(self._commands) <= stage:
            self._commands.append(data.View(Command, delay(m, self._commands[-1].as_value(), 1, "command")))
        return self._commands[stage]

    def _next_walk(self, m: Module, row, slot) -> None:
        """The block's first row follows the end of its last tile."""
        left = Signal(range(self.hw.lanes))  # lanes of this tile
        with m.If(self.start):
            m.d.sync += left.eq(self.hw.lanes - 1)
        with m.Elif(self.acc_next & slot):
            m.d.sync += left.eq(Mux(left == 0, self.hw.lanes - 1, left - 1))
            with m.If((left == 0) & (row + 1 >= self.rows)):
                m.d.sync += row.eq(0)

    @staticmethod
    def _ends(m: Module, now, latency: int) -> list:
        """``now`` at every stage of a pipeline."""
        ends = [now]
        for stage in range(latency):
            ends.append(delay(m, ends[-1], 1, f"at_{stage + 1}"))
        return ends

    def _operands(self, m: Module, at, t) -> None:
        """Row operands without scaled twins."""
        hidden = self._command(m, self._done).dest == Dest.HIDDEN
        at, t = self._results(m, Cat(at[0] & hidden, at[1:]), at[1], t)
        self._write(m, at, t, stage=self._done)

    def _results(self, m: Module, at, real, t):
        """Activations to the vectors; activations or a pass's results to the rows."""
        if not self.hw.general:
            return at, t
        valid = real & (self.command.dest == Dest.VALUE)
        m.d.sync += [self.value_valid.eq(valid), self.value.eq(Mux(valid, t, 0))]
        return at | self.mapped_valid.replicate(2), Mux(self.command.rows, self.mapped, t)

    def _drives(self, m: Module, platform, place, now):
        """Drives of both samples, kept from one drive sweep to the next."""
        w, wait, sums = self.hw.width, fetched(self.hw), [self._acc]
        sample, place, depth = place[0], place[1:], self.hw.depths.rows
        if self.hw.paired:  # a word has both samples'
            sums.append(delay(m, self.acc_b, wait - 1, "acc_b"))
            depth, place = BUFFERS * depth, Cat(place[:self.row_bits], buffer(self.command))
        else:
            depth, place = 2 * depth, Cat(sample, (place + (self.drive if self.hw.general else 0))[:self.row_bits])
        m.submodules.drives = drives = make_bank(platform, latency=wait, width=w * len(sums), depth=depth)
        # Often the same register as the activation's first.
        words = [Signal(signed(w), name=f"drive_{s}") for s, _ in zip("ab", sums, strict=False)]
        rounded = [delay(m, arith.rnd(x, self.hw.drive_shift), 1, "rounded") for x in sums]
        m.d.comb += [
            drives.r_addr.eq(place), drives.r_en.eq(1), drives.w_addr.eq(delay(m, place, wait + 1, "kept")),
            drives.w_en.eq(delay(m, now[1], 1, "drives") & (self._command(m, wait + 1).dest == Dest.DRIVE)),
            *(part.eq(arith.sat(x, w)) for part, x in zip(words, rounded, strict=True)), drives.w_data.eq(Cat(words)),
        ]
        if not self.hw.paired:
            return drives.r_data.as_signed()
        return Mux(delay(m, sample, wait, "sample"), drives.r_data[w:], drives.r_data[:w]).as_signed()

    def _tables(self, m: Module, pipe, first: int, count: int) -> None:
        """A pipeline's share of the tables' write port."""
        m.d.comb += [pipe.table_w_addr.eq(self.table_w_addr), pipe.table_w_data.eq(self.table_w_data),
                     pipe.table_w_half.eq(self.table_w_half),
                     pipe.table_w_en.eq(self.table_w_en[first:first + count])]

    @property
    def _activation_tables(self) -> int:
        return sum(len(p.tables()) for p in self.hw.activate)

    def _activation(self, m: Module, drive) -> ElementPipeline | Kinds:
        m.submodules.activate = pipe = kinds(self.hw.activate, width=self.hw.width, segments=self.hw.segments)
        self._tables(m, pipe, 0, self._activation_tables)
        feed(m, pipe, kind=self.command.kind, acc=self._acc, drive=drive)
        return pipe

    def _cost(self, m: Module, place, drive) -> ElementPipeline:
        m.submodules.cost = pipe = ElementPipeline(self.hw.cost, width=self.hw.width, segments=self.hw.segments,
                                                   early=("y",))
        self._tables(m, pipe, self._activation_tables, len(self.hw.cost.tables()))
        feed(m, pipe, acc=self._acc, drive=drive)
        if self.hw.learn:
            m.submodules.targets = targets = Bank(width=max(self.hw.target_bits, TARGET_BITS),
                                                  depth=2 * self.hw.depths.outputs)
            m.d.comb += [
                targets.r_addr.eq(place), targets.r_en.eq(1), targets.w_en.eq(self.target_w_en),
                targets.w_addr.eq(self.target_w_addr), targets.w_data.eq(self.target_w_data.as_signed()),
                pipe.target.eq(delay(m, targets.r_data[:self.hw.target_bits], fetched(self.hw) - 1,
                                     "target").as_signed()),
            ]
        return pipe

    def _keep(self, m: Module, platform, stage: int) -> Kept:
        """Where cost derivatives wait; what is taken comes beside the cost circuit's results, which come ``stage`` and
        `fetched` cycles after their sums."""
        m.submodules.kept = kept = Kept(self.hw, len(self.rows))
        c, real = self.command, self.acc_next & (self._row < self.rows)
        # The command is there in the cycle after the start.
        begun, early = delay(m, self.start, stage, "counts"), self._command(m, stage - 1)
        m.d.comb += [
            kept.next.eq(self.next), kept.begin.eq(begun & (early.dest == Dest.COST) & (early.nudge | ~early.echo)),
            kept.pop.eq(early.nudge), kept.older.eq(older(early) if self.hw.paired else 0),
            kept.rows.eq(delay(m, self.rows, stage - 1, "size")),
            kept.r_en.eq(delay(m, real & (c.dest == Dest.COST) & c.nudge, stage, "wanted")),
        ]
        return kept

    def _learn(self, m: Module, at, t, delta, costing) -> None:
        """Activations: t, and in the echo t * 2^-exponent for the gradient. Cost derivatives: in the free phase with
        the slot's sign for the readout's own gradient, in the echo scaled to the wanted response."""
        c, behind, w = self._command(m, self._done), self._done + scaled(self.hw), signed(self.hw.width)
        early, slot = Signal(), Signal()  # whose turn it is before and behind the shifter
        sample, amount = self._before(m, early)
        masked = self.masked.bit_select(sample, 1)
        if self._kept is not None:
            m.d.comb += [self._kept.w_en.eq(at[1] & costing & ~c.echo), self._kept.w_data.eq(Mux(masked, 0, delta))]
            delta, masked = Mux(c.nudge, self._kept.r_data.as_signed(), delta), masked & ~c.nudge
        real = at[1] & ~(costing & masked)
        if self.hw.general:
            valid = at[0] & ((self.command.dest == Dest.HIDDEN) | costing)
        else:
            valid = at[0] & (c.dest != Dest.DRIVE)
        at, t = self._results(m, Cat(valid, real, at[2:]), real, t)
        with m.If(self._begun(m, self._done)):
            m.d.sync += early.eq(0)
        with m.Elif(at[0]):
            m.d.sync += early.eq(~early)
        m.submodules.scale = scale = Scale(self.hw)
        late, after = self._command(m, behind), self._command(m, behind + 1)
        costed, twin = after.dest == Dest.COST, Signal(w)
        nudged, negative = costed & after.echo, costed
        if self.hw.adding:  # the lanes subtract: in PAIR slot b's operands are negative, and never the least word
            negative |= self.command.context == Context.PAIR
        m.d.comb += [
            scale.value.eq(Mux(costing, delta, t)), scale.down.eq(~costing), scale.echo.eq(c.echo),
            scale.amount.eq(amount),
            twin.eq(Mux(negative & ~nudged & ~slot, ~(scale.result - 1), scale.result)),  # it was slot b's turn
        ]
        self._write(m, delay(m, at, scaled(self.hw), "scaled"), scale.held, late.dest != Dest.COST, slot,
                    (twin, costed | after.echo, ~nudged), stage=behind)
        m.submodules.leading = leading = Leading(width=self.hw.width, early=int(self.hw.overlap))
        m.d.comb += [
            leading.clear.eq(self.next), leading.valid.eq(real & costing & ~c.echo), leading.sample.eq(sample),
            leading.word.eq(delta), leading.range.eq(self.range), leading.gain.eq(self.gain),
            self.leading.eq(leading.magnitude),
            self.exponent_a.eq(leading.exponent_a), self.exponent_b.eq(leading.exponent_b),
        ]

    def _before(self, m: Module, slot):
        """The sample of a ``slot`` at the stage of activations, and how far its words are shifted."""
        c, now = self._command(m, self._done - 1), (self.exponent_a, self.exponent_b)
        down, echo = c.dest != Dest.COST, c.echo
        if not self.hw.paired:
            sample = slot_sample(c.context, slot)
            return sample, shift_amount(down, echo, Mux(sample, *reversed(now)), self.gain)
        # From the command as it was a cycle before.
        amounts, samples = [], [delay(m, slot_sample(c.context, x), 1, f"sample_{x}") for x in range(2)]
        for exponent, before in zip(now, (self.older_a, self.older_b), strict=True):
            with m.If(self.next):
                m.d.sync += before.eq(exponent)
            exponent = Mux(older(c), before, exponent)
            amounts.append(delay(m, shift_amount(down, echo, exponent, self.gain), 1, "amount"))
        sample = Mux(slot, samples[1], samples[0])
        return sample, Mux(sample, amounts[1], amounts[0])

    def _begun(self, m: Module, stage: int):
        """Strobe before the first sum of a sweep is at a stage."""
        return delay(m, self.start, stage, "begun") if self.hw.paired else self.start

    def _write(self, m: Module, at, operand, on=1, slot=None, twin=(0, 0, 0), *, stage: int) -> None:
        """Register an operand, if ``on``, and with the next one its ``twin``: the word, whether there is one, and
        whether it goes to the scaled ones. While slot b's operand is written, slot a's twin is, and the other way
        round. Rows beyond the block are written as 0."""
        slot = Signal() if slot is None else slot
        lane, tile = Signal.like(self.row_a.lane), Signal.like(self.row_a.tile)
        behind, real = delay(m, at[0], 1, "pending"), delay(m, at[1], 1, "real")
        # Where operands go may depend on the command, which may come with the start.
        start, first = self._begun(m, stage), self.tile if self.hw.general else 0
        if self.hw.overlap:
            first = first | region(self.hw, self._command(m, stage - 1)) << len(tile) - 1
        if self.hw.general:
            start = delay(m, start, 1, "begin")
        ends = at[2] if self.hw.paired else lane == self.hw.lanes - 1  # of a tile
        with m.If(start):
            m.d.sync += [slot.eq(0), lane.eq(0), tile.eq(first)]
        with m.Elif(at[0]):
            m.d.sync += slot.eq(~slot)
            with m.If(slot):
                m.d.sync += lane.eq(lane + 1)
                with m.If(ends):
                    m.d.sync += [lane.eq(0), tile.eq(tile + 1)]
        kept, (other, other_on, apart) = Mux(at[1], operand, 0), twin
        other = Mux(real, other, 0)
        m.d.sync += [
            self.row_a.scaled.eq(slot & apart), self.row_a.lane.eq(lane), self.row_a.tile.eq(tile),
            self.row_a.enable.eq(at[0] & Mux(slot, other_on, on)), self.row_a.data.eq(Mux(slot, other, kept)),
            self.row_b.scaled.eq(~slot & apart), self.row_b.lane.eq(self.row_a.lane),
            self.row_b.tile.eq(self.row_a.tile), self.row_b.enable.eq(Mux(slot, at[0] & on, behind & other_on)),
            self.row_b.data.eq(Mux(slot, kept, other)),
        ]
        if self.hw.general:
            m.d.sync += [self.row_a.fill.eq(lane == 0), self.row_b.fill.eq(self.row_a.fill)]
