"""A chip on a board: serial port and busy light around a `Chip`."""

from amaranth.hdl import Elaboratable, Module
from amaranth.lib import io, wiring

from echolith.boards.pll import Pll, clock_domain
from echolith.compiler.design import Hardware
from echolith.rtl.chip import Chip
from echolith.rtl.uart import Uart

__all__ = ["BAUD", "Top"]

BAUD = 1_000_000


class Top(Elaboratable):
    """For any platform with resources ``uart`` 0 and ``led`` 0.

    Parameters
    ----------
    hardware : Hardware
    baud : int
        Bits per second of the serial port.
    pll : Pll, optional
        Makes the clock; the platform's default clock and power-on reset without it.
    """

    def __init__(self, hardware: Hardware, baud: int = BAUD, pll: Pll | None = None):
        self.hardware, self.baud, self.pll = hardware, baud, pll

    def elaborate(self, platform):
        m, clock = Module(), platform.default_clk_frequency
        if self.pll:
            clock = self.pll.output
            clock_domain(m, platform, self.pll)
        pins = platform.request("uart", 0, dir="-")
        m.submodules.uart = uart = Uart(clock_hz=int(clock), baud=self.baud)
        m.submodules.chip = chip = Chip(self.hardware)
        m.submodules.rx = rx = io.Buffer("i", pins.rx)
        m.submodules.tx = tx = io.Buffer("o", pins.tx)
        m.submodules.busy = busy = io.Buffer("o", platform.request("led", 0, dir="-"))
        wiring.connect(m, uart.o, chip.rx)
        wiring.connect(m, chip.tx, uart.i)
        m.d.comb += [uart.rx.eq(rx.i), tx.o.eq(uart.tx), busy.o.eq(chip.busy)]
        return m
