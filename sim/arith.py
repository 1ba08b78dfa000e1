"""The arithmetic of the machine, written once for ints, numpy arrays, Amaranth values and terms of C.

Every rounding, wrap and update rule of the chip is a function here; the RTL and the integer model call the same one.
Neither torch nor amaranth is imported: Amaranth values are told by their ``as_signed`` method, terms of C by their
``select``. All values are signed; numpy arrays are int64 and callers keep products below 2^62.
"""

from typing import Any

import numpy as np

__all__ = [
    "RATE_STEP", "abs_bits", "clipped", "crowded", "even", "exponent", "factor", "gradient_width", "move", "msb",
    "operand", "outside", "packed_weight", "rate_shift", "rnd", "sat", "shifted", "shr", "table_address",
    "table_fraction", "unless", "update", "wrap",
]

RATE_STEP = 10  # the coarse shifts of an update are rate_shift(0..3), RATE_STEP apart


def _hardware(x: Any) -> bool:
    return hasattr(x, "as_signed")


def _written(x: Any) -> bool:
    return hasattr(x, "select")


def _mux(condition: Any, a: Any, b: Any) -> Any:
    if _written(condition):
        return condition.select(a, b)
    if _hardware(condition):
        from amaranth.hdl import Mux

        return Mux(condition, a, b)
    return np.where(condition, a, b) if isinstance(condition, np.ndarray) else (a if condition else b)


def wrap(x: Any, width: int) -> Any:
    """Keep the low ``width`` bits, read as signed: addition modulo 2^width, which subtraction undoes exactly."""
    if _hardware(x):
        return x[:width].as_signed() if len(x) > width else x
    half = 1 << (width - 1)
    return ((x + half) & ((1 << width) - 1)) - half


def outside(x: Any, width: int) -> Any:
    """Whether ``x`` does not fit ``width`` signed bits."""
    return wrap(x, width) != x


def sat(x: Any, width: int) -> Any:
    """Clip to ``width`` signed bits. Never on a state."""
    high = (1 << (width - 1)) - 1
    if _hardware(x):
        if len(x) <= width:
            return x
        from amaranth.hdl import Const, Mux

        fits = (x[width - 1:].all() | ~x[width - 1:].any())
        limit = Mux(x[-1], Const(high + 1, width), Const(high, width))  # bit patterns: the extremes
        assert len(limit) == width
        return Mux(fits, x[:width], limit).as_signed()
    if _written(x):
        return _mux(x > high, high, _mux(x < -high - 1, -high - 1, x))
    return np.clip(x, -high - 1, high) if isinstance(x, np.ndarray) else min(max(x, -high - 1), high)


def rnd(x: Any, n: int) -> Any:
    """Drop ``n`` fraction bits, rounding half up; a negative ``n`` adds zero bits."""
    if n <= 0:
        return x << -n
    return (x + (1 << (n - 1))) >> n


def even(x: Any, n: Any) -> Any:
    """Drop ``n >= 0`` fraction bits, rounding half to even: of few bits, half way is often where a word is. In
    hardware ``n`` is known before, and not 0."""
    if _hardware(x):
        below = x[:n - 1].any() if n > 1 else 0
        return (x >> n) + ((x >> n - 1)[0] & ((x >> n)[0] | below))
    if isinstance(x, np.ndarray) and x.dtype == np.float64:
        return np.rint(x * 0.5**n)
    whole = x >> n
    return whole + ((x - (whole << n) << 1) + (whole & 1) > 1 << n)


def shr(x: Any, n: Any) -> Any:
    """``rnd`` by an amount known only at run time, ``n >= 0``; whole numbers may be float64 in arrays."""
    if isinstance(x, np.ndarray):
        return np.floor(x * 0.5**n + 0.5) if x.dtype == np.float64 else (x + (1 << n >> 1)) >> n
    return (((x << 1) >> n) + 1) >> 1


def factor(x: Any, width: int, bits: int) -> Any:
    """The upper ``bits`` of a ``width``-bit word, rounded: an operand of a packed product."""
    return sat(shr(x, width - bits), bits)


def operand(x: Any, width: int, bits: int) -> Any:
    """The same in words of ``width`` bits."""
    return factor(x, width, bits) * (1 << width - bits)


def packed_weight(x: Any, width: int, bits: int) -> Any:
    """The same of a weight, which is never the most negative word."""
    word, least = factor(x, width, bits), 1 - (1 << (bits - 1))
    return _mux(word < least, least, word)


def unless(x: Any, word: Any, reserved: int) -> Any:
    """``x``, or 0 where ``word`` is the ``reserved`` one."""
    return _mux(word == reserved, 0, x)


def abs_bits(x: Any) -> Any:
    """A non-negative word whose leading bit is that of |x| (one less for negative powers of two)."""
    return x ^ (x >> 63) if isinstance(x, np.ndarray) else _mux(x < 0, ~x, x)


def msb(x: Any) -> Any:
    """Position of the leading bit of a non-negative number, 0 for 0 and 1."""
    if isinstance(x, np.ndarray):
        return np.maximum(np.frexp(x.astype(np.float64))[1] - 1, 0)
    return max(int(x).bit_length() - 1, 0)


def exponent(response: Any, leading: Any, gain: Any, limit: int) -> Any:
    """Left shift of a sample's nudge: ``response - leading`` clamped to gain..limit."""
    x = response - leading
    x = _mux(x < gain, gain, x)
    return _mux(x > limit, limit, x)


def move(p: Any, force: Any, nudge: Any, reverse: Any) -> Any:
    """The kick before wrapping: forward ``p - force``, in reverse ``p + force - nudge``."""
    if isinstance(reverse, bool):
        return p + force - nudge if reverse else p - force
    return _mux(reverse, p + force - nudge, p - force)


def table_address(x: Any, width: int, segments: int) -> Any:
    """Segment of a piecewise-linear table with 2^segments pieces over all ``width``-bit words."""
    if _hardware(x):
        from amaranth.hdl import Cat

        return Cat(x[width - segments:width - 1], ~x[width - 1])
    return (x >> (width - segments)) + (1 << (segments - 1))


def table_fraction(x: Any, width: int, segments: int) -> Any:
    """Position inside the segment, ``width - segments`` bits, not negative."""
    return x[:width - segments] if _hardware(x) else x & ((1 << (width - segments)) - 1)


def crowded(x: Any, width: int, bits: int) -> Any:
    """Whether the ``width``-bit word ``x`` needs more than ``width - bits`` bits."""
    if _hardware(x):
        top = x[width - 1 - bits:]
        return ~(top.all() | ~top.any())
    return outside(x, width - bits)


def gradient_width(width: int) -> int:
    """Bits of a gradient word: two multiplier operands of ``width`` bits hold it, the low one unsigned."""
    return 2 * width - 1


def rate_shift(coarse: int) -> int:
    """Right shift of ``gradient * mantissa`` for a coarse exponent 0..3; the first is to the left."""
    return RATE_STEP * coarse - 5


def update(product: Any, width: int, coarse: Any) -> Any:
    """``round(product >> rate_shift(coarse))``: what one update adds to a word, or what is left of a gradient.

    ``product`` is gradient * mantissa. The shifted value is truncated only by its natural width.
    """
    return (shifted(product, coarse) + 1) >> 1


def shifted(product: Any, coarse: Any) -> Any:
    """``product >> rate_shift(coarse)`` with one more fraction bit, which rounds."""
    spare = 1 - rate_shift(0)
    found = [(product << spare) >> (rate_shift(c) - 1 + spare) for c in range(4)]
    if _hardware(product):
        from amaranth.hdl import Mux

        return Mux(coarse[1], Mux(coarse[0], found[3], found[2]), Mux(coarse[0], found[1], found[0]))
    return found[coarse]


def clipped(x: Any, width: int) -> Any:
    """Whether ``sat`` changes ``x``."""
    return outside(x, width)
