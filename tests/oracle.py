"""An interpreter of program words on plain arrays: what the general machine must do, written apart from the RTL and
from the integer model. No loops, no updates, no fetches."""

import numpy as np

from echolith.compiler.isa import Context, Dest, Field, Opcode, Setting
from echolith.compiler.pipeline import evaluate
from echolith.compiler.registers import Flag
from echolith.sim import arith
from echolith.sim.model import SHIFT_LIMIT

__all__ = ["Oracle"]


class Oracle:
    """Memories as arrays of Python ints; the last index of the state is the slot, of drives and nudges the sample."""

    def __init__(self, hw, tables, index=()):
        self.hw, self.tables, self.index, d = hw, tables, index, hw.depths
        self.settings = [0] * len(Setting)
        self.v, self.p = (np.zeros((4, d.units, 2), object) for _ in range(2))
        self.nudges, self.drives = np.zeros((d.units, 2), object), np.zeros((d.rows, 2), object)
        self.rows = np.zeros((2, d.tiles, hw.lanes, 2), object)  # plain, scaled
        self.weights, self.gradients = (np.zeros((hw.lanes, d.weights), object) for _ in range(2))
        self.vectors, self.vector_gradients = (np.zeros((len(hw.vectors), d.units), object) for _ in range(2))
        self.targets = np.zeros((d.outputs, 2), object)
        self.range = self.gain = 0

    def run(self, words):
        self.flags = self.response = self.leading = 0
        self.results, self.seen = [], [0, 0]
        for setting in range(Setting.SOURCE, Setting.REPEAT + 1):
            self.settings[setting] = 0
        for word in words:
            self.word, opcode = word, Opcode(word >> 28)
            if opcode == Opcode.SET:
                self.settings[word >> 24 & 15] = word & 0xFFFFFF
            elif opcode == Opcode.HALT:
                return
            elif opcode == Opcode.NEXT:
                self.seen = [0, 0]
            elif opcode == Opcode.UNITS:
                self.step([[0, 0]] * self[Setting.LENGTH])
            else:
                self.array({Opcode.FORWARD: self.forward, Opcode.OUTER: self.outer,
                            Opcode.TRANSPOSED: self.transposed}[opcode])

    def __getitem__(self, setting):
        return self.settings[setting]

    def on(self, field):
        return self.word >> field & 1

    @property
    def context(self):
        return self.word & 3

    @property
    def dest(self):
        return self.word >> Field.DEST & 3

    @property
    def kind(self):
        return self.word >> Field.KIND & 15 | self.on(Field.TARGET) << 4

    def sample(self, slot):
        return int(self.context == Context.ECHO_B or (self.context == Context.PAIR and slot == 1))

    def exponent(self, sample):
        return int(arith.exponent(self.range, int(arith.msb(self.seen[sample])), self.gain, SHIFT_LIMIT))

    def pipeline(self, pipeline, **inputs):
        wanted = {name for name, _ in pipeline.inputs}
        return evaluate(pipeline, {n: x for n, x in inputs.items() if n in wanted}, self.tables, self.hw.width,
                        self.hw.segments)

    def x(self, column, slot):
        """The broadcast operand of a column."""
        place = self[Setting.SOURCE] + column
        if self.on(Field.GATHER):
            place = self.index[self[Setting.FIRST] + column]
        if self.on(Field.SOURCE):
            return self.v[Context.INPUT, place, self.sample(slot)]
        return self.v[self.context, place, slot]

    def address(self, tile, column):
        return self[Setting.BASE] + tile * self[Setting.COLUMNS] + column

    # -- sweeps ----------------------------------------------------------------------------------------------------

    def array(self, sweep):
        """Once, or over and over: operands go on, results too."""
        before, sums = list(self.settings), []
        for _ in range(self[Setting.REPEAT] + 1):
            sums += sweep() or []
            self.settings[Setting.SOURCE] += self[Setting.COLUMNS]
            self.settings[Setting.FIRST] += self[Setting.COLUMNS]
            self.settings[Setting.TILE] += self[Setting.TILES]
            self.settings[Setting.PLACE] += self[Setting.ROWS]
        self.settings = before
        if sums:
            self.swept(sums)

    def forward(self):
        lanes = self.hw.lanes
        for row in range(self[Setting.TILES] * lanes):
            for slot in range(2):
                acc = sum((self.weights[row % lanes, self.address(row // lanes, c)] >> self.hw.width) * self.x(c, slot)
                          for c in range(self[Setting.COLUMNS]))
                self.summed(row, slot, acc)

    def summed(self, row, slot, acc):
        real, sample, w = row < self[Setting.ROWS], self.sample(slot), self.hw.width
        if self.dest == Dest.DRIVE:
            if real:
                self.drives[self[Setting.DRIVE] + row, sample] = arith.sat(arith.rnd(acc, self.hw.drive_shift), w)
        elif self.dest == Dest.COST:
            self.cost(row, slot, acc, real)
        else:
            drive = self.drives[self[Setting.DRIVE] + row, sample] if real else 0
            t = self.pipeline(self.hw.activate[self.kind], acc=acc, drive=drive)["t"] if real else 0
            if self.dest == Dest.HIDDEN:
                self.operand(self[Setting.TILE], row, slot, t)
            elif real:
                self.v[self.context, self[Setting.PLACE] + row, slot] = t

    def cost(self, row, slot, acc, real):
        hw, sample, tile, lane = self.hw, self.sample(slot), self[Setting.TILE] + row // self.hw.lanes, \
            row % self.hw.lanes
        out = self.pipeline(hw.cost, acc=acc, target=self.targets[row, sample] if real else 0)
        delta = out["delta"] if real else 0
        if self.on(Field.EMIT) and real:
            self.results.append(out["y"])
        if self.on(Field.ECHO):
            nudge = arith.sat(arith.rnd(delta << self.exponent(sample), hw.delta_shift), hw.width)
            self.rows[0, tile, lane, slot] = nudge
            return
        if real:
            self.seen[sample] |= arith.abs_bits(delta)
            self.leading |= arith.abs_bits(delta)
        own = arith.sat(arith.rnd(delta << self.gain, hw.readout_shift), hw.width - 1)
        self.rows[1, tile, lane, slot] = -own if slot else own

    def operand(self, tile, row, slot, t):
        """A row operand and, in an echo, its scaled twin; the first of a tile clears the rest."""
        tile, lane = tile + row // self.hw.lanes, row % self.hw.lanes
        scaled = arith.shr(t, self.exponent(self.sample(slot)) - self.gain)
        for half, word in enumerate((t, scaled) if self.on(Field.ECHO) else (t,)):
            if lane == 0:
                self.rows[half, tile, :, slot] = 0
            self.rows[half, tile, lane, slot] = word

    def outer(self):
        for tile in range(self[Setting.TILES]):
            for lane in range(self.hw.lanes):
                for column in range(self[Setting.COLUMNS]):
                    a, b = (self.rows[1, self[Setting.TILE] + tile, lane, s] * self.x(column, s) for s in range(2))
                    self.add(self.gradients[lane], self.address(tile, column), a - b)

    def add(self, gradients, place, change):
        gradients[place] = arith.wrap(gradients[place] + change, arith.gradient_width(self.hw.width))

    def transposed(self):
        tiles, first = range(self[Setting.TILES]), self[Setting.TILE]
        return [[sum((self.weights[lane, self.address(tile, column)] >> self.hw.width)
                     * self.rows[0, first + tile, lane, slot] for tile in tiles for lane in range(self.hw.lanes))
                 for slot in range(2)] for column in range(self[Setting.COLUMNS])]

    def swept(self, sums):
        """What becomes of the sums of a transposed sweep."""
        if not self.dest & 1:
            return self.step(sums, True)
        for i, pair in enumerate(sums):
            for slot, y in enumerate(pair):
                self.nudges[i, self.sample(slot)] = arith.sat(arith.rnd(y, self.hw.nudge_shift), self.hw.width)

    # -- passes ----------------------------------------------------------------------------------------------------

    def step(self, sums, sweeping=False):
        for i, pair in enumerate(sums):
            moved = [self.element(i, slot, acc, sweeping) for slot, acc in enumerate(pair)]
            for flag, source in ((Field.LEARN, "g"), (Field.MASS, "mass")):
                for n, shared in enumerate(self.hw.vectors if self.on(flag) else ()):
                    a, b = (arith.shr(out.get(f"{source}{n}", 0), self.exponent(self.sample(s)) - self.gain)
                            for s, out in enumerate(moved))
                    self.add(self.vector_gradients[n], 0 if shared else i, a - b)
            quiet = any(self.on(f) for f in (Field.VALUE, Field.ROWS, Field.CHECK, Field.EMIT, Field.GATHER))
            if self.on(Field.DRIFT) and self.on(Field.ECHO) and not quiet:
                a, b = self.v[self.context, self[Setting.FIRST] + i]
                self.response |= arith.abs_bits(a - b)

    def element(self, i, slot, acc, sweeping):
        """One slot of one element; the step pipeline's outputs."""
        sample, e, w = self.sample(slot), self[Setting.FIRST] + i, self.hw.width
        at = (Context.PAIR, slice(None), sample) if self.on(Field.SPREAD) else (self.context, slice(None), slot)
        first, second = (self.index[place % len(self.index)] if self.on(flag) else place % self.hw.depths.units
                         for flag, place in ((Field.GATHER, e), (Field.GATHER_SECOND, self[Setting.SECOND] + i)))
        e = self[Setting.PLACE] + i if self.on(Field.GATHER) else e
        q, r, p = self.v[at][first], self.v[at][second], self.p[at][e]
        words = {f"k{n}": self.vectors[n, 0 if shared else i] >> w for n, shared in enumerate(self.hw.vectors)}
        out = self.pipeline(self.hw.step[self.kind], acc=acc, q=q, r=r, **words)
        if self.on(Field.EMIT):
            self.results.append(q)
        if self.on(Field.CHECK):
            self.flags |= bool(q or p) << Flag.ECHO
        word = arith.wrap(out["force"], w)
        if self.on(Field.VALUE):
            place = self[Setting.PLACE] + (0 if self.on(Field.MAXIMUM) else i)
            largest = max(word, self.v[self.context, place, slot]) if self.on(Field.MAXIMUM) and i else word
            self.v[self.context, place, slot] = largest
        if self.on(Field.ROWS):
            self.operand(self[Setting.INTO if sweeping else Setting.TILE], i, slot, word)
        if not any(self.on(f) for f in (Field.VALUE, Field.ROWS, Field.CHECK, Field.EMIT)):
            out |= self.move(e, slot, sample, q, p, out["force"] if sweeping or self.on(Field.FORCE) else 0, words)
        return out

    def move(self, e, slot, sample, q, p, force, words):
        """The gradients of the drift, as mass0..."""
        w, reverse = self.hw.width, bool(self.on(Field.REVERSE))
        nudge = self.nudges[e, sample] * (-1 if slot else 1) if self.on(Field.NUDGE) else 0
        p = p if not force and not reverse else arith.move(p, force, nudge, reverse)
        drift = self.pipeline(self.hw.drift[self.word >> Field.DRIFT_KIND & 3], p=arith.wrap(p, w), **words)
        d = drift["d"] if self.on(Field.DRIFT) else 0
        q = q - d if reverse else q + d
        if self.on(Field.CLEAR):
            p = q = 0
        self.p[self.context, e, slot] = arith.wrap(p, w)
        if not self.on(Field.GATHER):
            self.v[self.context, e, slot] = arith.wrap(q, w)
        self.flags |= bool(arith.outside(p, w) or not self.on(Field.GATHER) and arith.outside(q, w)) << Flag.WRAPPED
        return {f"mass{name[1:]}": g for name, g in drift.items() if name != "d"}
