"""The synapse array: lanes, broadcast, adder tree, and the delays that turn a sweep's addresses into lane controls."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.timing import broadcast, tree_levels
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
        The sweep engine's element, which reaches the lanes' stage 0 `broadcast` cycles later. FORWARD: first and last
        column of a tile; TRANSPOSED: first and last tile of a column.
    region : In(1)
        Of the row operands; hardware with overlap only.
    start : In(1)
        A FORWARD sweep begins with the next element.
    taken : Out(1)
        Strobe before its first ``drain_next``.
    x_a, x_b : In(signed)
        A cycle after the element: the broadcast operands, or the mantissa.
    drain_next, drain : Out
        Sums of a forward sweep, one per cycle: slot a, slot b of lane 0, then of lane 1 ...; each is there in the cycle
        after its ``drain_next``.
    y_valid, y_a, y_b : Out
        One column's sums of a transposed sweep.
    row_a, row_b : In
        Writes of row operands.
    alarm, large, clipped : Out
        A gradient word near wrapping, or getting there; number of clipped masters in this cycle.
    host_* : access after a cycle of ``host_en`` and while it lasts; ``host_lane`` picks the lane, reads are valid two
        cycles after the address, writes happen one cycle after their enable.
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        w, address = hw.width, (hw.depths.weights - 1).bit_length()
        tile, word, acc = (hw.depths.tiles - 1).bit_length(), signed(hw.width), signed(hw.accumulator)
        super().__init__({
            "mode": In(Mode), "coarse": In(2), "update": In(2),
            "valid": In(1), "first": In(1), "last": In(1), "address": In(address), "tile": In(tile),
            "region": In(1), "start": In(1), "taken": Out(1), "x_a": In(word), "x_b": In(word),
            "drain_next": Out(1), "drain": Out(acc),
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
        tile = Cat(self.tile, self.region) if self.hw.overlap else self.tile
        element, self._address, self._tile, self._x_a, self._x_b = (
            delay(m, value, broadcast(self.hw), name) for value, name in (
                (Cat(self.valid, self.first, self.last, fresh, self.mode), "element_0"), (self.address, "address_0"),
                (tile, "tile"), (self.x_a, "x_a"), (self.x_b, "x_b")))
        stages = [element]
        for stage in range(7):
            stages.append(delay(m, stages[-1], 1, f"element_{stage + 1}"))
        self._modes = [Mode(s[4:6]) for s in stages]
        control = self._control(m, [s[0] for s in stages], [s[0] & s[1] for s in stages], stages)
        m.d.comb += self.taken.eq(stages[3][0] & stages[3][2] & stages[3][3] & (self._modes[3] == Mode.FORWARD))
        self._addresses(m, lanes)
        self._operands(m, lanes, control)
        self._host(m, lanes)
        self._drain(m, lanes, control.load)
        self._tree(m, lanes, stages)
        m.d.comb += [self.alarm.eq(Cat(lane.alarm for lane in lanes).any()),
                     self.large.eq(Cat(lane.large for lane in lanes).any()),
                     self.clipped.eq(sum(lane.clipped for lane in lanes))]
        return m

    def _control(self, m: Module, valid: list, first: list, stages: list):
        control = Signal(LaneControl)
        updating = self.mode == Mode.UPDATE
        m.d.comb += [
            control.mode.eq(self._modes[1]), control.coarse.eq(self.coarse), control.idle.eq(self.host_en),
            control.first.eq(first[3]),
            control.load.eq(stages[4][0] & stages[4][2] & (self._modes[4] == Mode.FORWARD)),
            control.outer.eq(valid[5] & (self._modes[5] == Mode.OUTER)),
            control.check.eq(valid[1] & updating & (self.update == 0)),
            control.apply.eq(valid[7] & updating & (self.update == 1)),
            control.decay.eq(valid[5] & updating & (self.update == 2)),
        ]
        return control

    def _addresses(self, m: Module, lanes: list) -> None:
        """Reads while the host is at it, or at the stage of each mode; writes from the last stages."""
        updating, host = self.mode == Mode.UPDATE, self.host_en
        later = [self._address]
        for stage in range(1, 8):
            # A host's write follows its enable by one cycle, as the last two stages do anyway.
            from_host = stage in (5, 7)
            later.append(delay(m, Mux(host, self.host_addr, later[-1]) if from_host else later[-1], 1,
                               f"address_{stage}"))
        for lane in lanes:
            m.d.comb += [
                lane.w_addr.eq(Mux(host, self.host_addr, Mux(updating, later[4], later[0]))),
                lane.g_addr.eq(Mux(host, self.host_addr, Mux(updating, later[0], later[3]))),
                lane.t_addr.eq(Cat(self._tile, self._modes[0] == Mode.OUTER)),
                lane.gw_addr.eq(later[5]), lane.ww_addr.eq(later[7]),
            ]

    def _operands(self, m: Module, lanes: list, control) -> None:
        for lane in lanes:
            m.d.comb += [lane.control.eq(control), lane.x_a.eq(self._x_a), lane.x_b.eq(self._x_b),
                         lane.row_a.eq(self.row_a), lane.row_b.eq(self.row_b)]

    def _host(self, m: Module, lanes: list) -> None:
        data = Signal(2 * self.hw.width)
        m.d.comb += data.eq(Mux(self.host_en, self.host_data, 0))
        for lane in lanes:
            chosen = self.host_lane == lane.index
            m.d.comb += [lane.host_w_en.eq(self.host_w_en & chosen), lane.host_g_en.eq(self.host_g_en & chosen),
                         lane.host_data.eq(data)]
        pick = delay(m, self.host_lane, 1, "host_lane")
        with m.Switch(pick):
            for lane in lanes:
                with m.Case(lane.index):
                    m.d.sync += [self.host_w_data.eq(lane.w_data), self.host_g_data.eq(lane.g_data)]

    def _drain(self, m: Module, lanes: list, load) -> None:
        """After a tile's last column: both slots of every lane, lane 0 first."""
        for lane, above in zip(lanes, lanes[1:], strict=False):
            m.d.comb += lane.previous.eq(above.drain)
        left = Signal(range(2 * self.hw.lanes))
        m.d.comb += [self.drain.eq(lanes[0].drain), self.drain_next.eq(load | (left != 0))]
        with m.If(load):
            m.d.sync += left.eq(2 * self.hw.lanes - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)

    def _tree(self, m: Module, lanes: list, stages: list) -> None:
        """Registered adder tree over the lanes, then the sum over tiles."""
        levels = tree_levels(self.hw.lanes)
        here = delay(m, Mux(self._modes[3] == Mode.TRANSPOSED, stages[3], 0), levels, "tree")
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
