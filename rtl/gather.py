"""Where the operands of a pass are read: one element after the other, or as the index memory says."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.rtl.memory import Bank

__all__ = ["Gather"]


class Gather(wiring.Component):
    """Counts both operands' elements and looks them up. The index memory is read ahead: the second operand's next word
    while the first one is used, else the first one's, so that a look-up costs no time.

    Members
    -------
    start : In(1)
        A command begins: counts go to ``first`` and ``second``, which are there already.
    first, second : In
        Elements, or places in the index memory if the flags below are set.
    gather, gather_second : In(1)
    read, again : In(1)
        The first, the second operand of an element is being read: ``again`` is the cycle after ``read``, and the next
        ``read`` is at least two cycles after the last one.
    place, other : Out
        Elements of the first and the second operand; valid during ``read`` and ``again``.
    w_* : writes of the index memory

    With repeated sweeps:

    sweeping, column : In
        The array reads columns: the place in the index memory of the next cycle's. The first is ``first``. With
        ``gather``, ``place`` is where it is.
    """

    def __init__(self, hw: Hardware):
        self.depth, self.bits, self.repeat = hw.depths.index, (hw.depths.units - 1).bit_length(), hw.repeat
        address = (self.depth - 1).bit_length()
        self.count_bits = count = max(address, self.bits)
        super().__init__({
            "start": In(1), "first": In(count), "second": In(count), "gather": In(1), "gather_second": In(1),
            "read": In(1), "again": In(1), "place": Out(self.bits), "other": Out(self.bits),
            "w_addr": In(address), "w_data": In(self.bits), "w_en": In(1),
            **({"sweeping": In(1), "column": In(address)} if hw.repeat else {}),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.index = index = Bank(width=self.bits, depth=self.depth)
        first, second = Signal(self.count_bits), Signal(self.count_bits)
        with m.If(self.start):
            m.d.sync += [first.eq(self.first), second.eq(self.second)]
        with m.Else():
            m.d.sync += [first.eq(first + self.read), second.eq(second + self.again)]
        ahead = Mux(self.read, second, first)
        if self.repeat:
            ahead = Mux(self.sweeping, self.column, ahead)
        m.d.comb += [
            index.r_en.eq(1), index.r_addr.eq(Mux(self.start, self.first, ahead)),
            index.w_addr.eq(self.w_addr), index.w_data.eq(self.w_data), index.w_en.eq(self.w_en),
            self.place.eq(Mux(self.gather, index.r_data, first)),
            self.other.eq(Mux(self.gather_second, index.r_data, second)),
        ]
        return m
