"""A core behind the byte link: what a UART or a simulator talks to."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Design, Hardware
from echolith.rtl.beat import Beat
from echolith.rtl.core import Core
from echolith.rtl.link import Link

__all__ = ["Chip"]


class Chip(wiring.Component):
    """Connections only.

    Members
    -------
    rx, tx : byte streams from and to the host
    busy : Out(1)
    """

    rx: In(stream.Signature(8))
    tx: Out(stream.Signature(8))
    busy: Out(1)

    def __init__(self, design: Design | Hardware):
        self.design = design
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.core = core = Core(self.design)
        m.submodules.link = link = Link(far=core.hw.overlap)
        wiring.connect(m, wiring.flipped(self.rx), link.rx)
        wiring.connect(m, link.tx, wiring.flipped(self.tx))
        pushed = link.push
        if core.hw.overlap:
            m.submodules.beat = beat = Beat(32)
            wiring.connect(m, pushed, beat.i)
            pushed = beat.o
        wiring.connect(m, pushed, core.push)
        wiring.connect(m, core.pull, link.pull)
        m.d.comb += [
            core.bus_addr.eq(link.bus_addr), core.bus_w_data.eq(link.bus_w_data), core.bus_w_stb.eq(link.bus_w_stb),
            core.bus_r_stb.eq(link.bus_r_stb), link.bus_r_data.eq(core.bus_r_data), self.busy.eq(core.busy),
        ]
        return m
