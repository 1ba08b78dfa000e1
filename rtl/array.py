"""The synapse array: lanes, broadcast, adder tree, and the delays that turn a sweep's addresses into lane controls."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.timing import GROUP, broadcast, fetched, summed, tree_levels, updated
from echolith.rtl.lane import Lane, LaneControl, Mode, row_write
from echolith.rtl.pipeline import delay
from echolith.sim import arith

__all__ = ["SynapseArray"]


class SynapseArray(wiring.Component):
    """Runs one sweep at a time over the lanes.

    Members
    -------
    mode, coarse, update : In
        Held during a sweep; ``update`` is the `isa.UpdateMode`.
    valid, first, last, address, tile : In
        The sweep engine's element; the lanes get it `broadcast` cycles later. FORWARD: first and last
        column of a tile; TRANSPOSED: first and last tile of a column.
    region : In(1)
        Of the row operands; hardware with overlap only.
    start : In(1)
        A FORWARD sweep begins with the next element.
    both : In(1)
        The element is of a sweep whose sums leave two at a time, both slots of a lane.
    taken : Out(1)
        Strobe before its first ``drain_next``.
    x_a, x_b : In(signed)
        `fetched` cycles after the element: the broadcast operands, or the mantissa.
    drain_next, drain, drain_b : Out
        Sums of a forward sweep, one per cycle: slot a, slot b of lane 0, then of lane 1 ...; each is there in the cycle
        after its ``drain_next``. With ``both``, slot b's beside slot a's.
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
        lanes = [Lane(self.hw, index) for index in range(self.hw.lanes)]
        for lane in lanes:
            m.submodules[f"lane_{lane.index}"] = lane
        fresh = Signal()  # the sweep's first tile
        with m.If(self.start):
            m.d.sync += fresh.eq(1)
        with m.Elif(self.valid & self.last):
            m.d.sync += fresh.eq(0)
        stages = [Cat(self.valid, self.first, self.last, fresh, self.mode, self.both)]
        for stage in range(1, updated(self.hw) + 1):
            stages.append(delay(m, stages[-1], 1, f"element_{stage}"))
        self._far, self._second = broadcast(self.hw), Signal()
        central = self._central(m, stages)
        groups = [lanes[start:start + GROUP] for start in range(0, self.hw.lanes, GROUP)]
        for index, group in enumerate(groups):
            self._group(m, group, {name: self._spread(m, value, name, index) for name, value in central.items()})
        self._host_reads(m, groups)
        self._drain(m, lanes, stages)
        self._tree(m, lanes, stages)
        m.d.sync += [self.alarm.eq(Cat(lane.alarm for lane in lanes).any()),
                     self.large.eq(Cat(lane.large for lane in lanes).any()),
                     self.clipped.eq(sum(lane.clipped for lane in lanes))]
        return m

    def _central(self, m: Module, stages: list) -> dict:
        """What all lanes get, by name, before the broadcast registers."""
        data = Signal(2 * self.hw.width)
        m.d.comb += data.eq(Mux(self.host_en, self.host_data, 0))
        tile = Cat(self.tile, self.region) if self.hw.overlap else self.tile
        before = fetched(self.hw) - 1
        return self._addresses(m) | {
            "control": self._control(m, stages), "x_a": self.x_a, "x_b": self.x_b, "row_a": self.row_a,
            "row_b": self.row_b, "host_data": data, "host_lane": self.host_lane, "host_w_en": self.host_w_en,
            "host_g_en": self.host_g_en,
            "t_addr": Cat(delay(m, tile, before, "tile"), _mode(stages[before]) == Mode.OUTER),
        }

    def _control(self, m: Module, stages: list):
        """See `LaneControl`."""
        control, f, update = Signal(LaneControl), fetched(self.hw), self.update
        updating = [s[0] & (_mode(s) == Mode.UPDATE) for s in stages]
        m.d.comb += [
            control.mode.eq(_mode(stages[f])), control.first.eq(stages[f + 2][0] & stages[f + 2][1]),
            control.load.eq(_drains(stages[summed(self.hw)])), control.shift.eq(self._shift(m, stages)),
            control.outer.eq(stages[f + 4][0] & (_mode(stages[f + 4]) == Mode.OUTER)),
            control.check.eq(updating[f] & (update == 0)), control.decay.eq(updating[f + 5] & (update == 2)),
            control.apply.eq(updating[f + 7] & (update == 1)), control.idle.eq(self.host_en),
            control.coarse.eq(self.coarse),
        ]
        return control

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
        updating, host, f = self.mode == Mode.UPDATE, self.host_en, fetched(self.hw)
        later = [self.address]
        for stage in range(1, updated(self.hw)):
            later.append(delay(m, later[-1], 1, f"address_{stage}"))
        # A host's write follows its enable by one cycle, as the last stages do anyway.
        written = Mux(updating, later[f + 4], later[f + 3])
        return {
            "w_addr": Mux(host, self.host_addr, Mux(updating, later[5], later[0])),
            "g_addr": Mux(host, self.host_addr, Mux(updating, later[0], later[3])),
            "gw_addr": delay(m, Mux(host, self.host_addr, written), 1, "written_gradient"),
            "ww_addr": delay(m, Mux(host, self.host_addr, later[f + 6]), 1, "written_master"),
        }

    def _spread(self, m: Module, value, name: str, group: int):
        """A copy for one group of lanes, which synthesis may not merge with the others'."""
        value = Value.cast(value)
        if not self._far:
            return value
        copy = Signal.like(value, name=f"{name}_{group}", reset_less=True,
                           attrs={"keep": 1} if self.hw.lanes > GROUP else {})
        m.d.sync += copy.eq(delay(m, value, self._far - 1, f"{name}_near"))
        return copy

    def _group(self, m: Module, lanes: list, here: dict) -> None:
        for lane in lanes:
            chosen = here["host_lane"] == lane.index
            m.d.comb += [getattr(lane, name).eq(value) for name, value in here.items() if not name.startswith("host")]
            m.d.comb += [lane.host_w_en.eq(here["host_w_en"] & chosen), lane.host_g_en.eq(here["host_g_en"] & chosen),
                         lane.host_data.eq(here["host_data"])]

    def _host_reads(self, m: Module, groups: list) -> None:
        """One lane of every group, then one group."""
        pick, found = delay(m, self.host_lane, self._far + fetched(self.hw), "host_lane"), []
        for lanes in groups:
            words = Signal(len(lanes[0].w_data) + len(lanes[0].g_data), reset_less=True)
            with m.Switch(pick):
                for lane in lanes:
                    with m.Case(lane.index):
                        m.d.sync += words.eq(Cat(lane.w_data, lane.g_data))
            found.append(words)
        if len(groups) > 1:
            chosen, pick = Signal.like(found[0], reset_less=True), delay(m, pick, 1, "host_group")
            m.d.sync += chosen.eq(Array(found)[pick // GROUP])
            found = [chosen]
        m.d.comb += Cat(self.host_w_data, self.host_g_data).eq(found[0])

    def _drain(self, m: Module, lanes: list, stages: list) -> None:
        """After a tile's last column: both slots of every lane, lane 0 first."""
        for lane, above in zip(lanes, lanes[1:], strict=False):
            m.d.comb += [lane.next_a.eq(above.drain_a), lane.next_b.eq(above.drain_b)]
        element = delay(m, stages[summed(self.hw) - 1], self._far, "summed")
        m.d.comb += self.taken.eq(_drains(element) & element[3])
        load, left = delay(m, _drains(element), 1, "load"), Signal(range(2 * self.hw.lanes))
        second, both = delay(m, self._second, self._far, "second"), delay(m, element[6], 1, "both")
        m.d.comb += [self.drain.eq(Mux(second, lanes[0].drain_b, lanes[0].drain_a)), self.drain_b.eq(lanes[0].drain_b),
                     self.drain_next.eq(load | (left != 0))]
        with m.If(load):
            m.d.sync += left.eq(Mux(both, self.hw.lanes - 1, 2 * self.hw.lanes - 1))
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)

    def _tree(self, m: Module, lanes: list, stages: list) -> None:
        """Registered adder tree over the lanes, then the sum over tiles."""
        levels, products = tree_levels(self.hw.lanes), stages[summed(self.hw) - 1]
        here = delay(m, Mux(_mode(products) == Mode.TRANSPOSED, products, 0), self._far + levels, "tree")
        m.d.sync += self.y_valid.eq(here[0] & here[2])
        for products, out in (([lane.pa for lane in lanes], self.y_a), ([lane.pb for lane in lanes], self.y_b)):
            for _ in range(levels):
                products = [self._add(m, products[i:i + 2]) for i in range(0, len(products), 2)]
            total = Signal.like(out, reset_less=True)
            with m.If(here[0]):
                m.d.sync += total.eq(Mux(here[1], products[0], total + products[0]))
            m.d.comb += out.eq(total)

    @staticmethod
    def _add(m: Module, pair: list):
        total = sum(pair[1:], pair[0])
        register = Signal(signed(len(total)), reset_less=True)
        m.d.sync += register.eq(total)
        return register


def _mode(element):
    return Mode(element[4:6])


def _drains(element):
    """Whether this is the last column of a tile of a FORWARD sweep."""
    return element[0] & element[2] & (_mode(element) == Mode.FORWARD)
