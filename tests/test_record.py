"""Where data words are: every word comes back, none crosses a line, formats are as narrow as the data allow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echolith.compiler.formats import Format, field, narrow
from echolith.compiler.record import Record

records = st.builds(
    lambda line, a, b, steps, inputs, outputs, reads: Record(
        line, (min(a, line), min(b, line)), steps, inputs, outputs, {"every": steps, "last": 1, "none": 0}[reads]),
    st.sampled_from([16, 32]), st.integers(2, 18), st.integers(2, 18), st.integers(1, 5), st.integers(0, 9),
    st.integers(1, 9), st.sampled_from(["every", "last", "none"]))


def words(record, seed, samples=3):
    rng = np.random.default_rng(seed)
    shapes = (samples, record.steps, record.inputs), (samples, record.reads, record.outputs)
    return [rng.integers(-(1 << bits - 1), 1 << bits - 1, shape)
            for bits, shape in zip(record.bits, shapes, strict=True)]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(record=records, seed=st.integers(0, 1000))
def test_words_come_back_from_their_lines(record, seed):
    x, target = words(record, seed)
    lines = record.pack(x, target)
    assert lines.shape == (3, record.lines) and int(lines.max(initial=0)) < 1 << record.line
    for found, expected in zip(record.unpack(lines), (x, target), strict=True):
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(record=records, seed=st.integers(0, 1000))
def test_rows_are_where_a_program_looks_for_them(record, seed):
    """A FETCH at a place reads the words of its row, field by field, by the place alone."""
    x, target = words(record, seed, samples=1)
    lines = record.pack(x, target)[0]
    for kind, rows in ((0, x[0]), (1, target[0])):
        width, bits = record.fields[kind], record.bits[kind]
        for i, row in enumerate(rows):
            at = (record.steps - record.reads + i) * record.row + record.target if kind else i * record.row
            assert at * record.unit % width == 0
            if record.inputs:
                assert record.number(at, bool(kind)) == i
            for j, word in enumerate(row):
                line, shift = divmod(at * record.unit + j * width, record.line)
                assert int(lines[line]) >> shift & (1 << bits) - 1 == int(word) & (1 << bits) - 1


def test_the_reference_network_takes_17_lines():
    record = Record(32, (6, 2), 8, 8, 10, 1)
    assert (record.fields, record.unit, record.row, record.target, record.lines) == ((8, 2), 2, 32, 32, 17)


@pytest.mark.parametrize("bits, line, expected", [(2, 32, 2), (5, 32, 8), (9, 32, 16), (18, 32, 32), (10, 10, 10)])
def test_fields_are_powers_of_two_within_a_line(bits, line, expected):
    assert field(bits, line) == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(bits=st.integers(2, 16), frac=st.integers(0, 8), seed=st.integers(0, 1000))
def test_exact_data_stay_exact_in_the_least_bits(bits, frac, seed):
    data = np.random.default_rng(seed).integers(-(1 << bits - 1), 1 << bits - 1, 50) * 2.0**-frac
    found = narrow(data, 18)
    scaled = data * 2.0**found.frac
    assert np.array_equal(scaled, np.rint(scaled)) and found.width <= bits
    assert -(1 << found.width - 1) <= scaled.min() and scaled.max() < 1 << found.width - 1
    if found.width > 2:
        assert scaled.min() < -(1 << found.width - 2) or scaled.max() >= 1 << found.width - 2


@settings(max_examples=100, deadline=None, derandomize=True)
@given(scale=st.floats(0.25, 1e3), seed=st.integers(0, 1000), width=st.sampled_from([16, 18]))
def test_other_data_lose_less_than_can_be_seen(scale, seed, width):
    data = scale * np.random.default_rng(seed).uniform(-1, 1, 100)
    found = narrow(data, width)
    lost = np.rint(data * 2.0**found.frac) * 2.0**-found.frac - data
    assert found.width in (16, width) and 2 * np.abs(data).max() <= found.limit or found.frac == 0
    assert np.sqrt(np.mean(lost**2)) <= 2.0**-12 * np.sqrt(np.mean(data**2))


def test_ones_and_zeros_take_two_bits():
    assert narrow(np.array([0.0, 1.0]), 18) == Format(2, 0)
    assert narrow(np.arange(17) / 16, 18) == Format(6, 4)
