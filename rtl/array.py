"""The synapse array: lanes, broadcast, adder tree, and the delays that turn a sweep's addresses into lane controls."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.isa import UpdateMode
from echolith.compiler.timing import (
    GROUP,
    broadcast,
    fetched,
    group_levels,
    operands,
    second_column,
    skew,
    summed,
    tree_levels,
    updated,
    worded,
)
from echolith.rtl.drain import Drain
from echolith.rtl.lane import Lane, LaneControl, Mode, row_write
from echolith.rtl.pair import Pair, PairControl
from echolith.rtl.pipeline import copied, delay, one_of
from echolith.sim import arith

__all__ = ["SynapseArray"]


class SynapseArray(wiring.Component):
    """Runs one sweep at a time over the lanes.

    Members
    -------
    mode, coarse, update : In
        Held during a sweep; ``update`` is the `isa.UpdateMode`.
    valid, first, last, address, tile : In
        The sweep engine's element; the lanes get it `broadcast` cycles later, those of the last group `skew` cycles
        behind the first's. FORWARD: first and last
        column of a tile; TRANSPOSED: first and last tile of a column, of two columns of packed products.
    second : In(1)
        Packed products only: the second cycle of an element of OUTER and UPDATE, the second column of TRANSPOSED.
    region : In(1)
        Of the row operands; hardware with overlap only.
    start : In(1)
        A FORWARD sweep begins with the next element.
    last_lane, last_leaving : In
        Tiles of the block swept, and of that whose sums leave, end with this lane; `Hardware.paired` only, as
        ``drain_last``.
    both : In(1)
        The element is of a sweep whose sums leave two at a time, both slots of a lane.
    taken : Out(1)
        Strobe before its first ``drain_next``.
    x_a, x_b : In(signed)
        `fetched` cycles after the element: the broadcast operands, or the mantissa.
    drain_next, drain, drain_b : Out
        Sums of a forward sweep, one per cycle: slot a, slot b of lane 0, then of lane 1 ...; each is there in the cycle
        after its ``drain_next``. With ``both``, slot b's beside slot a's.
    drain_last : Out(1)
        Beside ``drain_next``: a tile's last.
    y_valid, y_a, y_b : Out
        One column's sums of a transposed sweep.
    row_a, row_b : In
        Writes of row operands.
    alarm, large, clipped : Out
        A gradient word near wrapping, or getting there; number of clipped masters in this cycle.
    host_* : access after a cycle of ``host_en`` and while it lasts; ``host_lane`` picks the lane, reads are valid
        within `timing.host_read` of the address, writes happen one cycle after their enable.
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        w, address = hw.width, (hw.depths.weights - 1).bit_length()
        tile, word, acc = (hw.depths.tiles - 1).bit_length(), signed(hw.width), signed(hw.accumulator)
        super().__init__({
            "mode": In(Mode), "coarse": In(2), "update": In(2),
            "valid": In(1), "first": In(1), "last": In(1), "address": In(address), "tile": In(tile),
            "region": In(1), "start": In(1), "both": In(1), "taken": Out(1), "x_a": In(word), "x_b": In(word),
            **({"second": In(1)} if hw.packed else {}),
            **({"last_lane": In(range(hw.lanes)), "last_leaving": In(range(hw.lanes)), "drain_last": Out(1)}
               if hw.paired else {}),
            "drain_next": Out(1), "drain": Out(acc), "drain_b": Out(acc),
            "y_valid": Out(1), "y_a": Out(acc), "y_b": Out(acc),
            "row_a": In(row_write(hw)), "row_b": In(row_write(hw)),
            "alarm": Out(1), "large": Out(1), "clipped": Out(range(hw.lanes + 1)),
            "host_addr": In(address), "host_lane": In(range(hw.lanes + 1)), "host_en": In(1), "host_w_en": In(1),
            "host_g_en": In(1), "host_data": In(2 * w), "host_w_data": Out(2 * w),
            "host_g_data": Out(arith.gradient_width(w)),
        })

    def elaborate(self, platform):
        m = Module()
        packed = self.hw.packed is not None
        lanes = [Pair(self.hw, i) for i in range(self.hw.lanes // 2)] if packed else [
            Lane(self.hw, i) for i in range(self.hw.lanes)]
        for lane in lanes:
            m.submodules[f"{'pair' if packed else 'lane'}_{lane.index}"] = lane
        fresh = Signal()  # the sweep's first tile
        with m.If(self.start):
            m.d.sync += fresh.eq(1)
        with m.Elif(self.valid & self.last):
            m.d.sync += fresh.eq(0)
        stages = [Cat(self.valid, self.first, self.last, fresh, self.mode, self.both,
                      *([self.second] if packed else []))]
        for stage in range(1, updated(self.hw) + 1 + packed):
            stages.append(delay(m, stages[-1], 1, f"element_{stage}"))
        self._far, self._second = broadcast(self.hw), Signal()
        central = self._central(m, stages)
        size = GROUP // 2 if packed else GROUP
        groups = [lanes[start:start + size] for start in range(0, len(lanes), size)]
        here = {}
        for index, group in enumerate(groups):
            here = {name: self._spread(m, value, name, index, here.get(name)) for name, value in central.items()}
            self._group(m, group, here)
        self._host_reads(m, groups)
        self._drain(m, groups, stages)
        if packed:
            self._pair_trees(m, groups, stages)
        else:
            self._lane_trees(m, groups, stages)
        m.d.sync += [self.alarm.eq(Cat(lane.alarm for lane in lanes).any()),
                     self.large.eq(Cat(lane.large for lane in lanes).any()),
                     self.clipped.eq(sum(delay(m, sum(lane.clipped for lane in group), int(len(groups) > 1), "clipped")
                                         for group in groups))]
        return m

    def _central(self, m: Module, stages: list) -> dict:
        """What all lanes get, by name, before the broadcast registers."""
        data = Signal(2 * self.hw.width)
        m.d.comb += data.eq(Mux(self.host_en, self.host_data, 0))
        tile = Cat(self.tile, self.region) if self.hw.overlap else self.tile
        before = operands(self.hw) - 1
        given = {"x_a": self.x_a, "x_b": self.x_b, "row_a": self.row_a, "row_b": self.row_b}
        ends = {"last_lane": delay(m, self.last_lane, operands(self.hw) + 3, "last_lane")} if self.hw.paired else {}
        return ends | self._addresses(m) | (self._factors(m, stages) if self.hw.packed else given) | {
            "control": self._pair_control(m, stages) if self.hw.packed else self._control(m, stages),
            "host_data": data, "host_lane": self.host_lane, "host_w_en": self.host_w_en,
            "host_g_en": self.host_g_en,
            "t_addr": Cat(delay(m, tile, before, "tile"), _mode(stages[before]) == Mode.OUTER),
        }

    def _control(self, m: Module, stages: list):
        """See `LaneControl`."""
        control, f, update = Signal(LaneControl), fetched(self.hw), self.update
        updating = [s[0] & (_mode(s) == Mode.UPDATE) for s in stages]
        late = worded(self.hw)
        applied = (update == 1) | self._shrink if self.hw.shrinks else update == 1
        m.d.comb += [
            control.mode.eq(self._lanes_mode(stages[f])), control.first.eq(stages[f + 2][0] & stages[f + 2][1]),
            control.load.eq(_drains(stages[summed(self.hw)])), control.shift.eq(self._shift(m, stages)),
            control.outer.eq(stages[f + 4][0] & (_mode(stages[f + 4]) == Mode.OUTER)),
            control.check.eq(updating[f] & (update == 0)), control.decay.eq(updating[f + 5 + late] & (update == 2)),
            control.apply.eq(updating[f + 7 + late] & applied), control.idle.eq(self.host_en),
            control.coarse.eq(self.coarse),
        ]
        return control

    @property
    def _shrink(self):
        """Whether an update takes the weights themselves for gradients."""
        return self.update == UpdateMode.SHRINK

    def _lanes_mode(self, element):
        """That of the sweep; of an update that shrinks weights, FORWARD: they are what is multiplied."""
        mode = _mode(element)
        return Mux((mode == Mode.UPDATE) & self._shrink, Mode.FORWARD, mode) if self.hw.shrinks else mode

    def _pair_control(self, m: Module, stages: list):
        """See `PairControl`. The odd lane does everything a cycle later, in its element's second one."""
        control, o, update = Signal(PairControl), operands(self.hw), self.update
        outer = [s[0] & (_mode(s) == Mode.OUTER) for s in stages]
        updating = [s[0] & (_mode(s) == Mode.UPDATE) for s in stages]

        def both(strobes: list, stage: int):
            return Cat(strobes[stage], strobes[stage + 1])

        m.d.comb += [
            control.mode.eq(_mode(stages[o])), control.odd.eq(stages[o][7]),
            control.first.eq(stages[o + 3][0] & stages[o + 3][1]), control.load.eq(_drains(stages[summed(self.hw)])),
            control.odd_word.eq(stages[o + 3][7]), control.odd_master.eq(stages[o + 5][7]),
            control.outer.eq(both(outer, o + 4)), control.check.eq(updating[o] & (update == 0)),
            control.decay.eq(both(updating, o + 5) & (update == 2).replicate(2)),
            control.apply.eq(both(updating, o + 7) & (update == 1).replicate(2)), control.idle.eq(self.host_en),
            control.coarse.eq(self.coarse), control.shift.eq(self._shift(m, stages)),
        ]
        return control

    def _factors(self, m: Module, stages: list) -> dict:
        """Operands at the stage of multipliers: columns of FORWARD as factors, row operands of TRANSPOSED rounded."""
        w, bits, forward = self.hw.width, self.hw.packed.operand, _mode(stages[operands(self.hw) - 1]) == Mode.FORWARD
        found = {}
        for name in ("x_a", "x_b"):
            word = delay(m, getattr(self, name), operands(self.hw) - fetched(self.hw) - 1, f"{name}_wide").as_signed()
            narrow = Signal(signed(w), name=f"{name}_factor")
            m.d.comb += narrow.eq(arith.factor(word, w, bits))
            found[name] = delay(m, Mux(forward, narrow, word), 1, name)
        for name in ("row_a", "row_b"):
            found[name] = write = Signal(row_write(self.hw), name=f"{name}_written")
            given, rounded = getattr(self, name), Signal(signed(w), name=f"{name}_rounded")
            m.d.comb += [write.eq(given), rounded.eq(arith.factor(given.data, w, bits) << w - bits),
                         write.data.eq(Mux(given.scaled, given.data, rounded))]
        return found

    def _shift(self, m: Module, stages: list):
        """Behind a tile's last column the drain registers shift every second cycle; or every cycle, if both slots' sums
        leave together."""
        element, both = stages[summed(self.hw)], Signal()
        with m.If(_drains(element)):
            m.d.sync += [self._second.eq(0), both.eq(element[6])]
        with m.Else():
            m.d.sync += self._second.eq(~self._second & ~both)
        return self._second | both

    def _addresses(self, m: Module) -> dict:
        """Reads while the host is at it, or at the stage of each mode; writes from the last stages."""
        updating, host, o, k = self.mode == Mode.UPDATE, self.host_en, operands(self.hw), worded(self.hw)
        later, wait = [self.address], operands(self.hw) - fetched(self.hw)
        for stage in range(1, updated(self.hw)):
            later.append(delay(m, later[-1], 1, f"address_{stage}"))
        if self.hw.packed:  # both lanes' cycles have the first one's address
            with m.If(self.second & (updating | (self.mode == Mode.OUTER))):
                m.d.sync += later[1].eq(later[1])
        # A host's write follows its enable by one cycle, as the last stages do anyway.
        written = Mux(updating, later[o + 4 + k], later[o + 3])
        summand = updating
        if self.hw.shrinks:  # the master is read twice, the first time for its element
            summand = updating & ~(self._shrink & delay(m, self.valid, k, "shrunk"))
        return {
            "w_addr": Mux(host, self.host_addr, Mux(summand, later[wait + 5 + k], Mux(updating, later[k], later[0]))),
            "g_addr": Mux(host, self.host_addr, Mux(updating, later[wait], later[wait + 3])),
            "gw_addr": delay(m, Mux(host, self.host_addr, written), 1, "written_gradient"),
            "ww_addr": delay(m, Mux(host, self.host_addr, later[o + 6 + k]), 1, "written_master"),
        }

    def _spread(self, m: Module, value, name: str, group: int, before):
        """A copy for one group of lanes, which synthesis may not merge with the others'; or what the group ``before``
        hands on. Row operands are written in all groups at once."""
        value = Value.cast(value)
        if not self._far:
            return value
        if skew(self.hw) and group and name not in ("row_a", "row_b"):
            return delay(m, before, 1, f"{name}_{group}")
        near = delay(m, value, self._far - 1, f"{name}_near")
        return copied(m, near, f"{name}_{group}") if self.hw.lanes > GROUP else delay(m, near, 1, f"{name}_{group}")

    def _group(self, m: Module, lanes: list, here: dict) -> None:
        for lane in lanes:
            chosen = Cat(here["host_lane"] == place for place in self._places(lane))
            if self.hw.learn and self.hw.paired:
                m.d.comb += lane.filled.eq(Cat(delay(m, here["last_lane"] >= place, 1 + odd, "filled")
                                               for odd, place in enumerate(self._places(lane))))
            m.d.comb += [getattr(lane, name).eq(value) for name, value in here.items()
                         if not name.startswith(("host", "last"))]
            m.d.comb += [lane.host_data.eq(here["host_data"]),
                         lane.host_w_en.eq(here["host_w_en"].replicate(len(chosen)) & chosen),
                         lane.host_g_en.eq(here["host_g_en"].replicate(len(chosen)) & chosen)]

    @staticmethod
    def _places(lane: Lane | Pair) -> list[int]:
        """Numbers of the lanes in it."""
        return [lane.index] if isinstance(lane, Lane) else [2 * lane.index, 2 * lane.index + 1]

    def _host_reads(self, m: Module, groups: list) -> None:
        """Of every group what the lane gives that is meant, if it is one of those; then of all groups."""
        pick, found = delay(m, self.host_lane, self._far + fetched(self.hw) - 1, "host_lane"), []
        for lanes in groups:
            words = []
            for lane in lanes:
                given = Cat(lane.w_data, lane.g_data) if isinstance(lane, Lane) else lane.words
                for place, number in enumerate(self._places(lane)):
                    chosen = delay(m, pick == number, 1, "host_chosen")
                    words.append((chosen, given.word_select(place, len(given) // len(self._places(lane)))))
            found.append(delay(m, one_of(words), 1, "host_words"))
        read = reduce(or_, found)
        m.d.comb += Cat(self.host_w_data, self.host_g_data).eq(delay(m, read, int(len(groups) > 1), "host_read"))

    def _drain(self, m: Module, groups: list, stages: list) -> None:
        """After a tile's last column: both slots of every lane, lane 0 first."""
        chains = groups if skew(self.hw) else [[lane for group in groups for lane in group]]
        for lanes in chains:
            for lane, above in zip(lanes, lanes[1:], strict=False):
                m.d.comb += [lane.next_a.eq(above.drain_a), lane.next_b.eq(above.drain_b)]
        element = delay(m, stages[summed(self.hw) - 1], self._far, "summed")
        m.d.comb += self.taken.eq(_drains(element) & element[3])
        load, left = delay(m, _drains(element), 1, "load"), Signal(range(2 * self.hw.lanes))
        second, both = delay(m, self._second, self._far, "second"), delay(m, element[6], 1, "both")
        low, last = self.hw.dropped, self.last_leaving if self.hw.paired else self.hw.lanes - 1
        if self.hw.paired:
            m.d.comb += self.drain_last.eq(left == 1)
        a, b = self._leaving(m, groups, stages) if skew(self.hw) else (chains[0][0].drain_a, chains[0][0].drain_b)
        m.d.comb += [self.drain.eq(Mux(second, b, a) << low), self.drain_b.eq(b << low),
                     self.drain_next.eq(load | (left != 0))]
        with m.If(load):
            m.d.sync += left.eq(Mux(both, last, last << 1 | 1))
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)

    def _leaving(self, m: Module, groups: list, stages: list):
        """Both slots' sums of the lane whose turn it is, where groups are one behind the other."""
        m.submodules.drain = drain = Drain(self.hw)
        element = delay(m, stages[summed(self.hw) - 1], self._far - 1, "summing")
        m.d.comb += [drain.begin.eq(_drains(element)), drain.both.eq(element[6]),
                     drain.group_a.eq(Cat(group[0].drain_a for group in groups)),
                     drain.group_b.eq(Cat(group[0].drain_b for group in groups))]
        for group, shift in zip(groups, drain.shift, strict=True):
            m.d.comb += [lane.control.shift.eq(shift) for lane in group]
        return drain.a, drain.b

    def _lane_trees(self, m: Module, groups: list, stages: list) -> None:
        here = self._arriving(m, stages)
        m.d.sync += self.y_valid.eq(here[0] & here[2])
        for name, out in (("pa", self.y_a), ("pb", self.y_b)):
            products = [[getattr(lane, name) for lane in group] for group in groups]
            m.d.comb += out.eq(self._tree(m, products, here, len(out)))

    def _pair_trees(self, m: Module, groups: list, stages: list) -> None:
        """Two columns' sums come at once; the second one's wait."""
        here, first = self._arriving(m, stages), Signal()
        m.d.sync += first.eq(here[0] & here[2])
        second = delay(m, first, second_column(self.hw), "second_column")
        m.d.comb += self.y_valid.eq(first | second)
        for slot, out in (("a", self.y_a), ("b", self.y_b)):
            high, low = (self._tree(m, [[getattr(pair, f"{part}_{slot}") for pair in group] for group in groups], here,
                                    len(out) - self.hw.dropped) for part in ("high", "low"))
            waiting = Signal.like(low, name=f"waiting_{slot}", reset_less=True)
            with m.If(first):
                m.d.sync += waiting.eq(low)
            m.d.comb += out.eq(Mux(first, high, waiting) << self.hw.dropped)

    def _arriving(self, m: Module, stages: list):
        """The element whose products leave the tree."""
        products = stages[summed(self.hw) - 1]
        return delay(m, Mux(_mode(products) == Mode.TRANSPOSED, products, 0), self._far + tree_levels(self.hw), "tree")

    def _tree(self, m: Module, groups: list, here, width: int):
        """Registered adder tree over all groups' products, then the sum over tiles."""
        everything = [product for group in groups for product in group]
        found = self._summed_group(m, everything if not skew(self.hw) else groups[0])
        if skew(self.hw):  # the next group's are a cycle later
            found = delay(m, found, 1, "through")
            for group in groups[1:]:
                bits = len(everything[0]) + (len(everything) - 1).bit_length()
                found = self._add(m, [found, self._summed_group(m, group)], bits)
        total = Signal(signed(width), reset_less=True)
        with m.If(here[0]):
            m.d.sync += total.eq(Mux(here[1], found, total + found))
        return total

    def _summed_group(self, m: Module, products: list):
        for _ in range(group_levels(self.hw)):
            products = [self._add(m, products[i:i + 2]) for i in range(0, len(products), 2)]
        return products[0]

    @staticmethod
    def _add(m: Module, pair: list, bits: int | None = None):
        """In a register, of so many ``bits`` if more are not needed."""
        total = sum(pair[1:], pair[0])
        register = Signal(signed(min(len(total), bits or len(total))), reset_less=True)
        m.d.sync += register.eq(total)
        return register


def _mode(element):
    return Mode(element[4:6])


def _drains(element):
    """Whether this is the last column of a tile of a FORWARD sweep."""
    return element[0] & element[2] & (_mode(element) == Mode.FORWARD)
