"""cocotb bench of the UART at its pins: both directions, back to back, with the two baud rates apart.

The top level holds one UART per entry of ``UARTS``, under its name; `echolith.rtl.uart` stays out of here so that the
bench knows only the pins. Run by tests/test_uart.py.
"""

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer
from cocotbext.uart import UartSink, UartSource

__all__ = ["UARTS"]

UARTS = {"fast": (25_000_000, 3_000_000), "slow": (12_000_000, 1_000_000)}  # name: clock in Hz, baud
_BYTES = bytes([0, 255, 0x55, 0xAA]) + random.Random(0).randbytes(60)


async def _start(dut, name):
    """Clock and reset for the UART ``name``; returns its signals by their names in the component."""
    ports = {key: getattr(dut, f"{name}__{key}") for key in ("i__valid", "i__payload", "i__ready", "tx", "rx")}
    ports |= {key: getattr(dut, f"{name}__{key}") for key in ("o__valid", "o__payload", "o__ready")}
    for other in UARTS:
        getattr(dut, f"{other}__rx").value = 1
        getattr(dut, f"{other}__i__valid").value = 0
    ports["o__ready"].value = 1
    half = round(5e8 / UARTS[name][0] * 1000)
    Clock(dut.clk, 2 * half, unit="ps").start()
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    return ports


async def _received(dut, ports, count):
    data = bytearray()
    while len(data) < count:
        await FallingEdge(dut.clk)
        if ports["o__valid"].value:
            data.append(int(ports["o__payload"].value))
    return bytes(data)


@cocotb.test(timeout_time=3, timeout_unit="ms")
@cocotb.parametrize(case=[("fast", 1.0), ("slow", 1.0), ("slow", 0.98), ("slow", 1.02)], direction=["in", "out"])
async def carries_bytes(dut, case, direction):
    name, ratio = case
    ports = await _start(dut, name)
    baud = round(UARTS[name][1] * ratio)
    await Timer(random.Random(ratio).randrange(1, 999), "ns")  # any phase between line and clock
    if direction == "in":
        source = UartSource(ports["rx"], baud=baud)
        source.write_nowait(_BYTES)
        assert await _received(dut, ports, len(_BYTES)) == _BYTES
        return
    sink = UartSink(ports["tx"], baud=baud)
    begin = cocotb.utils.get_sim_time("ns")
    for byte in _BYTES:
        await FallingEdge(dut.clk)
        ports["i__payload"].value = byte
        ports["i__valid"].value = 1
        while not ports["i__ready"].value:
            await FallingEdge(dut.clk)
        await RisingEdge(dut.clk)
    ports["i__valid"].value = 0
    while sink.count() < len(_BYTES):
        await Timer(1, "us")
    assert sink.read_nowait() == _BYTES
    bits = (cocotb.utils.get_sim_time("ns") - begin) * UARTS[name][1] / 1e9
    assert bits < 10 * len(_BYTES) + 20, f"{bits:.0f} bit times for {len(_BYTES)} bytes of 10 bits"
