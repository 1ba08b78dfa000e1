"""Clocks that the boards' PLLs can make."""

import re

import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import io
from hypothesis import given
from hypothesis import strategies as st

from echolith.boards.catalog import BOARDS
from echolith.boards.icebreaker import Icebreaker
from echolith.boards.pll import clock_domain, find
from echolith.boards.ulx3s_85f import Ulx3s85F
from echolith.compiler.errors import ResourceError

LIMITS = {"ecp5": (3.125e6, 400e6, 800e6), "ice40": (10e6, 533e6, 1066e6)}  # least comparison, inner oscillator


@given(st.sampled_from(sorted(BOARDS)), st.floats(26e6, 200e6))
def test_settings_keep_the_data_sheets_limits_and_are_close(name, clock):
    board = BOARDS[name]
    pll = find(board.family, board.oscillator, clock)
    least, low, high = LIMITS[board.family]
    assert pll and clock * 0.85 <= pll.output <= clock * (1 + 1e-9)
    assert board.oscillator / pll.divide >= least and low <= pll.inner <= high
    ratio = pll.multiply / pll.divide if board.family == "ecp5" else pll.multiply / pll.divide / pll.post
    assert pll.output == pytest.approx(board.oscillator * ratio)


def test_round_clocks_are_exact():
    assert find("ecp5", 25e6, 60e6).output == 60e6
    assert find("ice40", 12e6, 18e6).output == 18e6


def test_the_oscillator_needs_no_pll():
    assert all(find(b.family, b.oscillator, b.oscillator) is None for b in BOARDS.values())


def test_a_clock_that_is_too_slow_is_refused():
    with pytest.raises(ResourceError) as caught:
        find("ice40", 12e6, 1e6)
    assert str(caught.value) == ("clock must be the oscillator's 12 MHz or one that the PLL can make of it, not 1 MHz")


class Blinker(Elaboratable):
    """One register behind the PLL of a board, whose value after power-on is 1."""

    def __init__(self, board):
        self.pll = find(board.family, board.oscillator, board.clock)

    def elaborate(self, platform):
        m, lit = Module(), Signal(init=1)
        clock_domain(m, platform, self.pll)
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.d.sync += lit.eq(~lit)
        m.d.comb += led.o.eq(lit)
        return m


def netlist(platform, name: str) -> str:
    text = platform().prepare(Blinker(BOARDS[name]), "top", emit_src=False).files["top.il"]
    return text if isinstance(text, str) else text.decode()


def test_an_ecp5s_clock_starts_with_its_pll_and_nothing_is_reset():
    text = netlist(Ulx3s85F, "ulx3s-85f")
    assert "cell \\EHXPLLL" in text and "cell \\DCCA" in text and not re.search(r"\\rst\b", text)
    assert re.search(r"attribute \\init 1'1\n\s+wire width 1 \\lit\b", text)  # what it has after power-on


def test_an_ice40_is_in_reset_until_its_pll_is_stable():
    text = netlist(Icebreaker, "icebreaker")
    assert "cell \\SB_PLL40_PAD" in text and "\\DCCA" not in text and re.search(r"\\rst\b", text)
