"""UART, 8 data bits, no parity, one stop bit, with an exact fractional baud generator."""

from fractions import Fraction

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["Uart", "baud_ratio"]

_MIN_CYCLES = 6  # per bit; below, one cycle of sampling jitter leaves no room for a baud mismatch
_MAX_ERROR = 0.001  # of a rate; UARTs get along with about 4 % between them


def baud_ratio(clock_hz: int, baud: int) -> Fraction:
    """Bits per clock cycle, as the fraction that the baud generators realise.

    Raises
    ------
    ValueError
        If the clock has less than 6 cycles per bit, or more than 65536.
    """
    wanted = Fraction(int(baud), int(clock_hz))
    if not clock_hz / 65536 <= baud <= clock_hz / _MIN_CYCLES:
        low, high = -(-clock_hz // 65536), clock_hz // _MIN_CYCLES
        raise ValueError(f"baud must be in {low}..{high} for a clock of {clock_hz} Hz, not {baud!r}")
    # The shortest accumulator that is good enough.
    ratios = (wanted.limit_denominator(1 << bits) for bits in range(3, 32))
    return next(ratio for ratio in ratios if abs(ratio / wanted - 1) <= _MAX_ERROR)


class _Ticks(wiring.Component):
    """Strobes once per bit. Over ``denominator`` cycles exactly ``numerator`` ticks, each at most one cycle late.

    An accumulator below zero gains the numerator every cycle; a tick, when it has reached zero, pays the denominator.

    Attributes
    ----------
    restart : in
        The next tick follows half a bit after this cycle.
    tick : out
    """

    restart: In(1)
    tick: Out(1)

    def __init__(self, ratio: Fraction):
        self._ratio = ratio
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        num, den = self._ratio.numerator, self._ratio.denominator
        r_phase = Signal(signed(den.bit_length() + 1), init=-den)
        m.d.comb += self.tick.eq(r_phase >= 0)
        m.d.sync += r_phase.eq(r_phase + Mux(self.tick, num - den, num))
        with m.If(self.restart):
            # The edge is seen on average half a cycle late: start half a cycle (num / 2) further.
            m.d.sync += r_phase.eq(num + (num - den) // 2)
        return m


class Uart(wiring.Component):
    """Byte streams on one side, pins on the other.

    A received byte waits in a register for a whole byte time. If it is not taken by then the next byte is dropped; a
    byte whose stop bit is low is dropped as well. Neither is reported: the frames above carry a CRC.

    Parameters
    ----------
    clock_hz : int
        Frequency of the ``sync`` domain.
    baud : int
        Bits per second, both ways.

    Attributes
    ----------
    i : stream of 8 bits, in
        Bytes to send.
    o : stream of 8 bits, out
        Bytes received.
    tx, rx : out, in
        Pins, idle high. ``rx`` is synchronised here.

    Raises
    ------
    ValueError
        See `baud_ratio`.
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))
    tx: Out(1, init=1)
    rx: In(1, init=1)

    def __init__(self, *, clock_hz: int, baud: int):
        self.clock_hz = clock_hz
        self.baud = baud
        self._ratio = baud_ratio(clock_hz, baud)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        self._send(m)
        self._receive(m)
        return m

    def _send(self, m):
        m.submodules.m_tx_ticks = m_ticks = _Ticks(self._ratio)
        r_bits = Signal(9, init=0x1FF)
        r_left = Signal(range(10))  # bits still to follow the one on the pin, stop bit included
        m.d.comb += self.tx.eq(r_bits[0])
        m.d.comb += self.i.ready.eq(m_ticks.tick & (r_left == 0))
        with m.If(m_ticks.tick):
            m.d.sync += r_bits.eq(Cat(r_bits[1:], 1))
            with m.If(r_left != 0):
                m.d.sync += r_left.eq(r_left - 1)
            with m.Elif(self.i.valid):
                m.d.sync += r_bits.eq(Cat(0, self.i.payload))
                m.d.sync += r_left.eq(9)

    def _receive(self, m):
        m.submodules.m_rx_ticks = m_ticks = _Ticks(self._ratio)
        s_line = Signal(init=1)
        r_line = Signal(init=1)
        r_busy = Signal()
        # Samples enter at the top; the marker leaves at the bottom when the eight data bits are in.
        r_bits = Signal(10)
        m.submodules.m_sync = FFSynchronizer(self.rx, s_line, init=1)
        m.d.sync += r_line.eq(s_line)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        with m.If(~r_busy):
            with m.If(r_line & ~s_line):
                m.d.comb += m_ticks.restart.eq(1)
                m.d.sync += [r_busy.eq(1), r_bits.eq(1 << 9)]
        with m.Elif(m_ticks.tick):
            m.d.sync += r_bits.eq(Cat(r_bits[1:], s_line))
            with m.If(~r_bits[:9].any() & s_line):  # no start bit, a glitch
                m.d.sync += r_busy.eq(0)
            with m.If(r_bits[0]):
                m.d.sync += r_busy.eq(0)
                with m.If(s_line & (~self.o.valid | self.o.ready)):
                    m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(r_bits[2:])]
