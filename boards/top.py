"""A chip on a board: serial port and busy light around a `Chip`."""

from amaranth.hdl import Elaboratable, Module
from amaranth.lib import io, wiring

from echolith.compiler.design import Hardware
from echolith.rtl.chip import Chip
from echolith.rtl.uart import Uart

__all__ = ["BAUD", "Top"]

BAUD = 1_000_000


class Top(Elaboratable):
    """For any platform with resources ``uart`` 0 and ``led`` 0. Runs on its default clock and power-on reset.

    Parameters
    ----------
    hardware : Hardware
    baud : int
        Bits per second of the serial port.
    """

    def __init__(self, hardware: Hardware, baud: int = BAUD):
        self.hardware, self.baud = hardware, baud

    def elaborate(self, platform):
        m = Module()
        pins = platform.request("uart", 0, dir="-")
        m.submodules.uart = uart = Uart(clock_hz=int(platform.default_clk_frequency), baud=self.baud)
        m.submodules.chip = chip = Chip(self.hardware)
        m.submodules.rx = rx = io.Buffer("i", pins.rx)
        m.submodules.tx = tx = io.Buffer("o", pins.tx)
        m.submodules.busy = busy = io.Buffer("o", platform.request("led", 0, dir="-"))
        wiring.connect(m, uart.o, chip.rx)
        wiring.connect(m, chip.tx, uart.i)
        m.d.comb += [uart.rx.eq(rx.i), tx.o.eq(uart.tx), busy.o.eq(chip.busy)]
        return m
