"""Clocks that a board's PLL can make from its oscillator: dividers, and the domain that they drive."""

from dataclasses import dataclass

from amaranth.hdl import ClockDomain, ClockSignal, Instance, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from echolith.compiler.errors import ResourceError
from echolith.compiler.scalars import real

__all__ = ["Pll", "clock_domain", "find"]

_SETTLED = 1 << 10  # cycles from lock to the end of reset: iCE40's block memories are unreliable for 15 us


@dataclass(frozen=True)
class Pll:
    """``output`` = ``oscillator`` * ``multiply`` / (``divide`` * ``post``) Hz, with an oscillator of the PLL running
    at ``output`` * ``post``. On ECP5 ``post`` is in the feedback: ``output`` = oscillator * multiply / divide."""

    family: str
    oscillator: float
    divide: int
    multiply: int
    post: int

    @property
    def inner(self) -> float:
        """Hz of the PLL's own oscillator."""
        return self.oscillator / self.divide * self.multiply * (self.post if self.family == "ecp5" else 1)

    @property
    def output(self) -> float:
        return self.inner / self.post


def find(family: str, oscillator: float, clock: float) -> Pll | None:
    """The settings whose clock is the highest not above ``clock`` Hz; None if it is the oscillator's own.

    Limits of the phase detector and of the inner oscillator are those of Lattice's data sheets for ECP5 (-6) and iCE40
    UltraPlus.

    Raises
    ------
    ResourceError
        If the PLL reaches no clock that is so slow, or ``clock`` is no number.
    """
    if real(clock) is None:
        raise ResourceError(f"clock must be a number of Hz, not {clock!r}")
    if clock == oscillator:
        return None
    settings = [p for p in (_ecp5 if family == "ecp5" else _ice40)(oscillator) if p.output <= clock * (1 + 1e-9)]
    if not settings:
        raise ResourceError(f"clock must be the oscillator's {oscillator / 1e6:g} MHz or one that the PLL can make of "
                            f"it, not {clock / 1e6:g} MHz")
    return max(settings, key=lambda p: (p.output, p.inner))


def _ecp5(oscillator: float):
    for divide in range(1, int(oscillator / 3.125e6) + 1):
        for multiply in range(1, 81):
            output = oscillator * multiply / divide
            for post in range(max(1, -(-400e6 // output).__trunc__()), min(128, int(800e6 / output)) + 1):
                yield Pll("ecp5", oscillator, divide, multiply, post)


def _ice40(oscillator: float):
    for divide in range(1, int(oscillator / 10e6) + 1):
        for multiply in range(1, 129):
            if 533e6 <= oscillator / divide * multiply <= 1066e6:
                for post in range(1, 7):
                    yield Pll("ice40", oscillator, divide, multiply, 1 << post)


def clock_domain(m: Module, platform, pll: Pll) -> None:
    """Domain ``sync`` from the board's default clock through ``pll``, which it waits for: on ECP5 without a clock, from
    the registers' initial values; on iCE40, which cannot stop one, in reset."""
    clock, locked, waited = Signal(name="pll_clock"), Signal(name="pll_locked"), Signal(range(_SETTLED + 1))
    settled = waited[-1]  # the limit is a power of two
    pin = platform.request(platform.default_clk, dir="-")
    m.domains.locked = ClockDomain("locked", reset_less=True)
    m.d.comb += ClockSignal("locked").eq(clock)
    with m.If(locked & ~settled):
        m.d.locked += waited.eq(waited + 1)
    if pll.family == "ecp5":
        # A reset of all registers would be the longest wire of the chip.
        m.domains.sync = domain = ClockDomain("sync", reset_less=True)
        m.submodules.pll = _ehxplll(m, pin, pll, clock, locked)
        m.submodules.gate = Instance("DCCA", i_CLKI=clock, i_CE=settled, o_CLKO=domain.clk)
    else:
        m.domains.sync = domain = ClockDomain("sync")
        m.submodules.pll = _sb_pll40(pin, pll, clock, locked)
        m.d.comb += domain.clk.eq(clock)
        m.submodules.reset = ResetSynchronizer(~settled, domain="sync")


def _ehxplll(m: Module, pin, pll: Pll, clock: Signal, locked: Signal) -> Instance:
    m.submodules.oscillator = buffer = io.Buffer("i", pin)
    return Instance(
        "EHXPLLL", a_FREQUENCY_PIN_CLKI=f"{pll.oscillator / 1e6:g}", a_FREQUENCY_PIN_CLKOP=f"{pll.output / 1e6:g}",
        a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1", a_MFG_GMCREF_SEL="2",
        p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
        p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB", p_OUTDIVIDER_MUXC="DIVC", p_OUTDIVIDER_MUXD="DIVD",
        p_CLKI_DIV=pll.divide, p_CLKFB_DIV=pll.multiply, p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=pll.post,
        p_CLKOP_CPHASE=pll.post // 2, p_CLKOP_FPHASE=0, p_FEEDBK_PATH="CLKOP",
        i_CLKI=buffer.i, i_CLKFB=clock, i_RST=0, i_STDBY=0, i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=1, i_PHASESTEP=1,
        i_PHASELOADREG=1, i_PLLWAKESYNC=0, i_ENCLKOP=0, o_CLKOP=clock, o_LOCK=locked)


def _sb_pll40(pin, pll: Pll, clock: Signal, locked: Signal) -> Instance:
    detector = pll.oscillator / pll.divide
    return Instance(
        "SB_PLL40_PAD", p_FEEDBACK_PATH="SIMPLE", p_DIVR=pll.divide - 1, p_DIVF=pll.multiply - 1,
        p_DIVQ=pll.post.bit_length() - 1, p_FILTER_RANGE=1 if detector < 17e6 else 2 if detector < 26e6 else 3,
        i_PACKAGEPIN=pin.io, i_RESETB=1, i_BYPASS=0, o_PLLOUTGLOBAL=clock, o_LOCK=locked)
