"""The arithmetic of the machine: ints, numpy arrays and Amaranth values agree, and all agree with hand-worked words."""

from fractions import Fraction

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, Value, signed, unsigned
from amaranth.sim import Simulator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from echolith.sim import arith

WIDTHS = [2, 3, 5, 8, 16, 18, 25, 36]
FAST = settings(max_examples=60, deadline=None)


def corners(bits):
    """Words around every power of two, both signs, and the extremes."""
    near = {s * (1 << k) + d for k in range(bits) for s in (1, -1) for d in (-1, 0, 1)}
    return sorted(w for w in near | {0} if -(1 << bits - 1) <= w < 1 << bits - 1)


def vectors(bits, count=100, seed=0):
    """Corners, and random words in which any leading bit is as likely as any other."""
    generator = np.random.default_rng([bits, seed])
    words = generator.integers(-(1 << bits - 1), 1 << bits - 1, count) >> generator.integers(0, bits, count)
    return [*corners(bits), *words.tolist()]


def hardware(function, shapes, rows):
    """``function`` of Amaranth signals of ``shapes`` for every row of values, in the simulator."""
    inputs = [Signal(shape, name=f"x{i}") for i, shape in enumerate(shapes)]
    result = Value.cast(function(*inputs))
    output = Signal(result.shape())
    m = Module()
    m.d.comb += output.eq(result)
    seen = []

    async def bench(ctx):
        for row in rows:
            for signal, value in zip(inputs, row, strict=True):
                ctx.set(signal, value)
            seen.append(ctx.get(output))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


def agree(function, shapes, rows, array=True):
    """Results on ints, after checking that the simulator and, element by element, numpy say the same."""
    expected = [int(function(*row)) for row in rows]
    assert hardware(function, shapes, rows) == expected
    if array:
        columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
        assert np.asarray(function(*columns)).astype(np.int64).tolist() == expected
    return expected


def wide(width):
    """Words of ``width + 3`` bits: what an addition or a product hands to a rule for ``width`` bits."""
    return signed(width + 3), [(x,) for x in vectors(width + 3)]


@pytest.mark.parametrize("width", WIDTHS)
def test_wrap(width):
    shape, rows = wide(width)
    for (x,), got in zip(rows, agree(lambda x: arith.wrap(x, width), [shape], rows), strict=True):
        assert -(1 << width - 1) <= got < 1 << width - 1 and (got - x) % (1 << width) == 0
    short = [(x,) for x in corners(width - 1)] if width > 2 else [(-1,), (0,)]
    assert agree(lambda x: arith.wrap(x, width), [signed(width - 1)], short) == [x for x, in short]


@pytest.mark.parametrize("width", WIDTHS)
def test_sat(width):
    shape, rows = wide(width)
    high = (1 << width - 1) - 1
    assert agree(lambda x: arith.sat(x, width), [shape], rows) == [sorted((-high - 1, x, high))[1] for x, in rows]
    assert agree(lambda x: arith.sat(x, width + 3), [shape], rows) == [x for x, in rows]


@pytest.mark.parametrize("width", WIDTHS)
def test_outside_and_clipped(width):
    shape, rows = wide(width)
    beyond = [not -(1 << width - 1) <= x < 1 << width - 1 for x, in rows]
    for rule in (arith.outside, arith.clipped):
        assert agree(lambda x, rule=rule: rule(x, width), [shape], rows) == beyond
    high = 1 << width - 1
    assert beyond == [arith.sat(x, width) != x for x, in rows] == [not -high <= x < high for x, in rows]


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("width", [8, 18, 35])
def test_crowded(width, bits):
    rows = [(x,) for x in vectors(width)]
    limit = 1 << width - bits - 1
    assert agree(lambda x: arith.crowded(x, width, bits), [signed(width)], rows) == [
        not -limit <= x < limit for x, in rows]


@pytest.mark.parametrize("n", [-3, -1, 0, 1, 2, 7, 17])
@pytest.mark.parametrize("width", [8, 18, 36])
def test_rnd(width, n):
    rows = [(x,) for x in vectors(width)]
    got = agree(lambda x: arith.rnd(x, n), [signed(width)], rows)
    assert got == [(Fraction(x) / Fraction(2) ** n + Fraction(1, 2)).__floor__() if n > 0 else x << -n for x, in rows]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 17])
@pytest.mark.parametrize("width", [8, 18, 36])
def test_even(width, n):
    rows = [(x,) for x in vectors(width)]
    got = agree(lambda x: arith.even(x, n), [signed(width)], rows)
    assert got == [round(Fraction(x, 1 << n)) for x, in rows]


@pytest.mark.parametrize("width", [8, 18])
def test_shr_is_rnd_with_an_amount_known_late(width):
    rows = [(x, n) for x in vectors(width, 20) for n in range(32)]
    assert agree(arith.shr, [signed(width), unsigned(5)], rows) == [arith.rnd(x, n) for x, n in rows]


@pytest.mark.parametrize("width", WIDTHS)
def test_abs_bits_has_the_leading_bit_of_the_magnitude(width):
    rows = [(x,) for x in vectors(width)]
    for (x,), got in zip(rows, agree(arith.abs_bits, [signed(width)], rows), strict=True):
        assert got == (x if x >= 0 else -x - 1)


def test_msb():
    words = np.array([0, *(1 << k for k in range(50)), *((1 << k) - 1 for k in range(1, 50))])
    assert [arith.msb(int(w)) for w in words] == arith.msb(words).tolist()
    assert [arith.msb(w) for w in (0, 1, 2, 3, 4, 7, 8, 131071)] == [0, 0, 1, 1, 2, 2, 3, 16]


def test_exponent_is_clamped_between_gain_and_limit():
    rows = [(r, e, g) for r in (0, 1, 5, 17, 31, 40, 255) for e in (0, 1, 5, 17) for g in (0, 1, 7)]
    got = agree(lambda r, e, g: arith.exponent(r, e, g, 31), [unsigned(8), unsigned(5), unsigned(5)], rows)
    assert got == [min(max(r - e, g), 31) for r, e, g in rows]


@pytest.mark.parametrize("width", [4, 18])
def test_move(width):
    triples = zip(vectors(width, seed=1), vectors(width, seed=2)[::-1], vectors(width, seed=3), strict=True)
    rows = [(p, f, n, reverse) for p, f, n in triples for reverse in (0, 1)]
    shapes = [signed(width), signed(width), signed(width), unsigned(1)]
    got = agree(arith.move, shapes, rows)
    assert got == [p + f - n if reverse else p - f for p, f, n, reverse in rows]


@pytest.mark.parametrize("width, segments", [(8, 3), (16, 8), (18, 9), (18, 1)])
def test_table_address_and_fraction_divide_the_range(width, segments):
    rows = [(x,) for x in vectors(width)]
    address = agree(lambda x: arith.table_address(x, width, segments), [signed(width)], rows)
    fraction = agree(lambda x: arith.table_fraction(x, width, segments), [signed(width)], rows)
    step = 1 << width - segments
    for (x,), a, f in zip(rows, address, fraction, strict=True):
        assert 0 <= a < 1 << segments and 0 <= f < step and (a - (1 << segments - 1)) * step + f == x


@pytest.mark.parametrize("width", [16, 18])
def test_update(width):
    bits = arith.gradient_width(width)
    gradients, mantissas = vectors(bits, 30), vectors(width, 10)[::3]
    rows = [(g * m, c) for g in gradients[::3] for m in mantissas for c in range(4)]
    got = hardware(lambda p, c: arith.update(p, width, c), [signed(3 * width - 1), unsigned(2)], rows)
    assert got == [arith.rnd(p, 10 * c - 5) for p, c in rows] == [arith.update(p, width, c) for p, c in rows]
    for coarse in range(4):
        products = [p for p, c in rows if c == coarse]
        expected = [arith.update(p, width, coarse) for p in products]
        assert arith.update(np.array(products), width, coarse).tolist() == expected


@pytest.mark.parametrize("width", [2, 8, 18, 25])
def test_gradient_word_is_two_multiplier_operands(width):
    bits = arith.gradient_width(width)
    for word in vectors(bits):
        high, low = word >> width - 1, word & (1 << width - 1) - 1
        assert -(1 << width - 1) <= high < 1 << width - 1 and 0 <= low < 1 << width - 1
        assert (high << width - 1) + low == word


HAND = [
    (arith.wrap, (128, 8), -128), (arith.wrap, (-129, 8), 127), (arith.wrap, (256, 8), 0),
    (arith.sat, (128, 8), 127), (arith.sat, (-129, 8), -128), (arith.sat, (-5, 8), -5),
    (arith.rnd, (5, 1), 3), (arith.rnd, (-5, 1), -2), (arith.rnd, (6, 2), 2), (arith.rnd, (-6, 2), -1),
    (arith.rnd, (5, 2), 1), (arith.rnd, (3, -2), 12), (arith.even, (5, 1), 2), (arith.even, (-5, 1), -2),
    (arith.even, (6, 2), 2), (arith.even, (-6, 2), -2), (arith.even, (7, 2), 2),
    (arith.shr, (-5, 1), -2), (arith.shr, (7, 0), 7),
    (arith.shr, (131071, 17), 1), (arith.shr, (-65536, 17), 0), (arith.abs_bits, (-1,), 0), (arith.abs_bits, (-4,), 3),
    (arith.table_address, (-131072, 18, 9), 0), (arith.table_address, (0, 18, 9), 256),
    (arith.table_address, (-1, 18, 9), 255), (arith.table_fraction, (-1, 18, 9), 511),
    (arith.update, (3, 18, 0), 96), (arith.update, (48, 18, 1), 2), (arith.update, (-48, 18, 1), -1),
    (arith.update, (1 << 24, 18, 3), 1),
    (arith.update, ((1 << 24) - 1, 18, 3), 0), (arith.update, (-(1 << 24), 18, 3), 0),
    (arith.update, (-(1 << 24) - 1, 18, 3), -1), (arith.rate_shift, (0,), -5), (arith.rate_shift, (3,), 25),
    (arith.gradient_width, (18,), 35), (arith.move, (10, 3, 4, False), 7), (arith.move, (7, 3, 4, True), 6),
]


@pytest.mark.parametrize("function, arguments, result", HAND, ids=[f"{f.__name__}{a}" for f, a, _ in HAND])
def test_hand_worked(function, arguments, result):
    assert function(*arguments) == result


@FAST
@given(st.integers(2, 40), st.lists(st.integers(-(1 << 61), (1 << 61) - 1), min_size=1, max_size=50))
@example(2, [-(1 << 61), (1 << 61) - 1])
def test_arrays_equal_ints_for_any_width(width, words):
    array = np.array(words, np.int64)
    for rule in (arith.wrap, arith.sat, arith.outside, arith.rnd, arith.even):
        assert rule(array, width).tolist() == [rule(w, width) for w in words], rule.__name__
    assert arith.abs_bits(array).tolist() == [arith.abs_bits(w) for w in words]


@FAST
@given(st.integers(3, 24), st.data())
def test_any_width_equals_hardware(width, data):
    word = st.integers(-(1 << width - 1), (1 << width - 1) - 1)
    rows = data.draw(st.lists(st.tuples(word, word), min_size=1, max_size=8))
    target, drop = data.draw(st.integers(2, width + 2)), data.draw(st.integers(-2, width))
    shapes = [signed(width)] * 2
    agree(lambda a, b: arith.wrap(a + b, target), shapes, rows)
    agree(lambda a, b: arith.sat(a * b, target), shapes, rows)
    agree(lambda a, b: arith.sat(arith.rnd(a * b, drop), target), shapes, rows)
