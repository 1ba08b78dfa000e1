"""cocotb bench of the synapse array at its ports: every mode against numpy, on random words of all sizes.

Environment: ARRAY, a JSON object with width, lanes, accumulator and fetched (cycles from an element to its operands).
"""

import json
import math
import os
from fractions import Fraction

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

from echolith.sim.arith import gradient_width, rate_shift

__all__ = ["Array"]

FORWARD, OUTER, TRANSPOSED, UPDATE = range(4)
CHECK, APPLY, DECAY = range(3)
BASE, COLUMNS, TILES = 3, 5, 2  # of the block used
READ_CYCLES = 8  # of a word for the host


def _signed(value: int, bits: int) -> int:
    return (value & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1)


class Array:
    """The array's ports: host access, row operands, sweeps."""

    def __init__(self, dut):
        self.dut, size = dut, json.loads(os.environ["ARRAY"])
        self.width, self.lanes, self.accumulator = size["width"], size["lanes"], size["accumulator"]
        self.fetched = size["fetched"]
        self.random = np.random.default_rng(cocotb.RANDOM_SEED)

    def words(self, bits, *shape):
        """Signed words; any leading bit is as likely as any other."""
        words = self.random.integers(-(1 << bits - 1), 1 << bits - 1, shape)
        return words >> self.random.integers(0, bits, shape)

    async def start(self):
        dut = self.dut
        for name in ("valid", "first", "last", "address", "tile", "x_a", "x_b", "mode", "coarse", "update", "row_a",
                     "row_b", "host_addr", "host_lane", "host_en", "host_w_en", "host_g_en", "host_data"):
            getattr(dut, name).value = 0
        self.fill(self.lanes)
        dut.rst.value = 1
        Clock(dut.clk, 10, unit="ns").start()
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        dut.rst.value = 0

    def fill(self, rows):
        """Tiles have so many rows, where they may have less than there are lanes."""
        self.rows = self.lanes
        if hasattr(self.dut, "last_lane"):
            self.rows, self.dut.last_lane.value, self.dut.last_leaving.value = rows, rows - 1, rows - 1

    async def store(self, words, strobe):
        """(lanes, tiles, columns) words to the weights (``host_w_en``) or gradients (``host_g_en``)."""
        dut = self.dut
        dut.host_en.value = 1
        await RisingEdge(dut.clk)
        getattr(dut, strobe).value = 1
        for (lane, tile, column), word in np.ndenumerate(words):
            dut.host_lane.value, dut.host_addr.value = lane, BASE + tile * COLUMNS + column
            dut.host_data.value = int(word) & (1 << 2 * self.width) - 1
            await RisingEdge(dut.clk)
        getattr(dut, strobe).value = 0
        await RisingEdge(dut.clk)  # a write follows its strobe by one cycle
        dut.host_en.value = 0

    async def load(self, port, bits):
        """(lanes, tiles, columns) words of ``bits`` from ``host_w_data`` or ``host_g_data``."""
        dut, words = self.dut, np.zeros((self.lanes, TILES, COLUMNS), np.int64)
        dut.host_en.value = 1
        for (lane, tile, column), _ in np.ndenumerate(words):
            dut.host_lane.value, dut.host_addr.value = lane, BASE + tile * COLUMNS + column
            for _ in range(READ_CYCLES):
                await RisingEdge(dut.clk)
            await FallingEdge(dut.clk)
            words[lane, tile, column] = _signed(int(getattr(dut, port).value), bits)
            await RisingEdge(dut.clk)
        dut.host_en.value = 0
        return words

    async def operands(self, words, kind):
        """Row operands (slots, lanes, tiles): ``t``, or ``s`` for the scaled ones."""
        ports, lane_bits = (self.dut.row_a, self.dut.row_b), max(1, (self.lanes - 1).bit_length())
        data = len(ports[0]) - self.width
        for (slot, lane, tile), word in np.ndenumerate(words):
            place = 1 | (kind == "s") << 1 | lane << 2 | tile << 2 + lane_bits
            ports[slot].value = place | (int(word) & (1 << self.width) - 1) << data
            await RisingEdge(self.dut.clk)
            ports[slot].value = 0
        await RisingEdge(self.dut.clk)

    async def sweep(self, mode, elements, x, every=1, coarse=0, update=0):
        """One element per ``every`` cycles; ``elements`` are (first, last, tile, column) or None for a pause.

        ``x`` (slots, columns) goes out behind its element. Returns what was seen at the outputs:
        (slot, lane, tile) -> sum, one (a, b) per column, and the counts of alarm and clipped.
        """
        dut, drained, columns, alarms, clipped, coming = self.dut, {}, [], 0, 0, False
        waiting = [(0, 0)] * self.fetched
        dut.mode.value, dut.coarse.value, dut.update.value = mode, coarse, update
        pauses = [None] * (every - 1)
        schedule = [step for element in elements for step in (element, *pauses)]
        for element in (*schedule, *[None] * (20 + 2 * self.lanes)):
            dut.valid.value = element is not None
            dut.x_a.value, dut.x_b.value = waiting.pop(0)
            waiting.append(waiting[-1] if mode == UPDATE else (0, 0))  # a rate stays
            if element is not None:
                first, last, tile, column = element
                dut.first.value, dut.last.value, dut.tile.value = first, last, tile
                dut.address.value = BASE + tile * COLUMNS + column
                waiting[-1] = int(x[0][column]), int(x[1][column])
            await FallingEdge(dut.clk)
            coming, now = bool(dut.drain_next.value), coming
            alarms += int(dut.alarm.value)
            clipped += int(dut.clipped.value)
            if now:
                pair, slot = divmod(len(drained), 2)
                drained[slot, pair % self.rows, pair // self.rows] = dut.drain.value.to_signed()
            if dut.y_valid.value:
                columns.append((dut.y_a.value.to_signed(), dut.y_b.value.to_signed()))
            await RisingEdge(dut.clk)
        return drained, columns, alarms, clipped

    @property
    def rows_first(self):
        """Elements of a sweep tile by tile."""
        return [(c == 0, c == COLUMNS - 1, t, c) for t in range(TILES) for c in range(COLUMNS)]

    def block(self, bits):
        return self.words(bits, self.lanes, TILES, COLUMNS)


async def _started(dut):
    array = Array(dut)
    await array.start()
    return array


@cocotb.test()
@cocotb.parametrize(idle=[0, 1])
async def forward_sums_rows(dut, idle):
    array = await _started(dut)
    array.fill(array.lanes - idle)
    masters, x = array.block(2 * array.width), array.words(array.width, 2, COLUMNS)
    await array.store(masters, "host_w_en")
    room = [None] * max(0, 2 * array.rows - COLUMNS)  # a tile's sums leave two per lane and cycle
    elements = [e for t in range(TILES) for e in (*array.rows_first[t * COLUMNS:(t + 1) * COLUMNS], *room)]
    drained, *_ = await array.sweep(FORWARD, elements, x)
    sums = np.einsum("ltc,sc->slt", masters[:array.rows] >> array.width, x)
    assert list(drained) == [(s, lane, t) for t in range(TILES) for lane in range(array.rows) for s in range(2)]
    assert drained == {place: int(value) for place, value in np.ndenumerate(sums)}


@cocotb.test()
async def transposed_sums_columns(dut):
    array = await _started(dut)
    masters, t = array.block(2 * array.width), array.words(array.width, 2, array.lanes, TILES)
    await array.store(masters, "host_w_en")
    await array.operands(t, "t")
    await array.operands(array.words(array.width, 2, array.lanes, TILES), "s")  # must not matter
    elements = [(tile == 0, tile == TILES - 1, tile, c) for c in range(COLUMNS) for tile in range(TILES)]
    _, columns, *_ = await array.sweep(TRANSPOSED, elements, np.zeros((2, COLUMNS)))
    assert np.array_equal(columns, np.einsum("ltc,slt->cs", masters >> array.width, t))


@cocotb.test()
@cocotb.parametrize(idle=[0, 2])
async def outer_accumulates_the_contrast(dut, idle):
    array = await _started(dut)
    array.fill(array.lanes - idle)
    bits = gradient_width(array.width)
    before, ts = array.block(bits), array.words(array.width, 2, array.lanes, TILES)
    await array.store(before, "host_g_en")
    await array.operands(ts, "s")
    await array.operands(array.words(array.width, 2, array.lanes, TILES), "t")
    total, ts = before, ts * (np.arange(array.lanes) < array.rows)[:, None]
    for _ in range(2):
        x = array.words(array.width, 2, COLUMNS)
        await array.sweep(OUTER, array.rows_first, x)
        contrast = np.einsum("slt,sc->sltc", ts, x)
        total = total + contrast[0] - contrast[1]
    half = 1 << bits - 1
    assert np.array_equal(await array.load("host_g_data", bits), (total + half) % (2 * half) - half)


@cocotb.test()
@cocotb.parametrize(coarse=[0, 1, 2, 3])
async def update_applies_and_decays(dut, coarse):
    array = await _started(dut)
    w, bits = array.width, gradient_width(array.width)
    masters, gradients = array.block(2 * w), array.block(bits)
    masters[0, 0, :2], gradients[0, 0, :2] = (1 << 2 * w - 1) - 1, (1 << bits - 1) - 1
    mantissa = int(array.words(w, 1)[0]) | 1 << w - 4
    await array.store(masters, "host_w_en")
    await array.store(gradients, "host_g_en")
    x = np.full((2, COLUMNS), mantissa)
    shift = rate_shift(coarse)
    change = [math.floor(Fraction(int(g) * mantissa) / Fraction(2) ** shift + Fraction(1, 2))
              for g in gradients.reshape(-1)]
    summed = [int(m) + c for m, c in zip(masters.reshape(-1), change, strict=True)]
    high = (1 << 2 * w - 1) - 1
    *_, clipped = await array.sweep(UPDATE, array.rows_first, x, 2, coarse, APPLY)
    got = await array.load("host_w_data", 2 * w)
    assert got.reshape(-1).tolist() == [min(max(value, -high - 1), high) for value in summed]
    assert clipped == sum(not -high - 1 <= value <= high for value in summed)
    assert np.array_equal(await array.load("host_g_data", bits), gradients)
    await array.sweep(UPDATE, array.rows_first, x, 2, coarse, DECAY)
    assert (await array.load("host_g_data", bits)).reshape(-1).tolist() == [_signed(c, bits) for c in change]
    assert np.array_equal(await array.load("host_w_data", 2 * w), got)


@cocotb.test()
@cocotb.parametrize(beyond=[0, -1])
async def check_sees_one_word_near_wrapping(dut, beyond):
    array = await _started(dut)
    quarter = 1 << gradient_width(array.width) - 2
    gradients = np.full((array.lanes, TILES, COLUMNS), quarter - 1)
    gradients[array.lanes - 1, TILES - 1] = -quarter
    gradients[0, 1, 2] = -quarter + beyond
    await array.store(gradients, "host_g_en")
    *_, alarms, _ = await array.sweep(UPDATE, array.rows_first, np.zeros((2, COLUMNS)), 2, 0, CHECK)
    assert bool(alarms) == bool(beyond)
    assert np.array_equal(await array.load("host_g_data", gradient_width(array.width)), gradients)
