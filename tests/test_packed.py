"""Narrow words, and packed products: what sweeps see, what is learned, what is refused."""

import numpy as np
import pytest
import torch
from networks import Oscillators
from test_machine import compare, data, same

import echolith as el
from echolith.compiler.formats import Packed
from echolith.compiler.inventory import multipliers
from echolith.examples import digits
from echolith.examples.teach import learn
from echolith.sim import arith
from echolith.sim.data import words
from echolith.sim.device import IntegerDevice
from echolith.sim.model import IntegerModel
from echolith.sim.rounding import rounding
from echolith.sim.weights import from_values, load

SIZES = (6, 9, 3, 4)


def compiled(precision, sizes=SIZES, steps=4, lanes=4, cost_at="last", **options):
    torch.manual_seed(0)
    x, y = data(np.random.default_rng(0), 24, steps, sizes[2], sizes[3], cost_at)
    how = {"dynamics": el.Leapfrog(0.25, 2), "rule": el.HamiltonianEcho(cost_at), "calibrate": (x, y), **options}
    return el.compile(Oscillators(*sizes, mse=False, bias=True), lanes=lanes, precision=precision, **how), x, y


def test_a_factor_is_the_nearest_word_of_fewer_bits():
    words_ = np.arange(-(1 << 9), 1 << 9)
    for word, got, weight in zip(words_, arith.factor(words_, 10, 4), arith.packed_weight(words_, 10, 4), strict=True):
        nearest = min(int(np.floor(word / 64 + 0.5)), 7)
        assert (got, weight) == (nearest, max(nearest, -7))
        assert (arith.factor(int(word), 10, 4), arith.packed_weight(int(word), 10, 4)) == (got, weight)
        assert arith.factor(np.array([word], np.float64), 10, 4) == got


@pytest.mark.parametrize("packed", [Packed(4, 11), Packed(5, 9), Packed(3, 5)])
def test_two_products_come_apart_again(packed):
    """The extremes and a sample of what is between."""
    high, limit = 1 << packed.operand - 1, (1 << packed.weight - 1) - 1
    x = np.unique([-high, 1 - high, -1, 0, 1, high - 1, *np.random.default_rng(0).integers(-high, high, 50)])
    for a in range(-limit, limit + 1):
        for b in range(-limit, limit + 1):
            both = (a << packed.shift) + b
            assert arith.wrap(both, packed.weight + packed.shift) == both
            low = arith.wrap(both * x, packed.shift)
            np.testing.assert_array_equal(low, b * x)
            np.testing.assert_array_equal((both * x >> packed.shift) + (low < 0), a * x)


def test_sweeps_see_few_bits_and_gradients_all_of_them():
    design, x, y = compiled("packed")
    model = IntegerModel(design)
    load(model, design.values)
    for block in design.blocks:
        seen = model.swept(block.name)
        assert np.abs(seen).max() <= 7 << 14 and not (seen & (1 << 14) - 1).any()
    x, y = words(design, x[:4], y[:4, None])
    model.learn(x, y)
    assert all(np.count_nonzero(model.gradients[name] & 127) for name in ("hidden", "readout"))


@pytest.mark.parametrize("precision", ["packed", {"product": "5 x 9 bits"}, {"word": "12 bits"}])
def test_every_step_stays_within_the_bounds_of_its_formats(precision):
    design, x, y = compiled(precision)
    x, y = words(design, x[:8], y[:8, None])
    found = rounding(design, from_values(design, design.values), x, y, 0.1)
    assert found.divergence is None and 0 < found.error <= found.bound


def test_packed_products_learn_digits():
    design = el.compile(digits.large(), dynamics=el.Leapfrog(digits.DT, digits.SUBSTEPS), lanes=8,
                        rule=el.HamiltonianEcho("last"), calibrate=digits.data(), precision="packed")
    with design.open("int:") as chip:
        assert learn(chip, 2, lambda *_: None).test[-1] > 0.85


@pytest.mark.parametrize("precision", ["packed", {"word": "12 bits"}])
def test_formats_come_back_from_a_design_and_from_its_file(precision, tmp_path):
    design, *_ = compiled(precision)
    assert compiled(design.precision)[0].hardware == design.hardware
    assert compiled("auto", like=design)[0].hardware == design.hardware
    design.save(tmp_path / "net.echolith")
    assert el.load(tmp_path / "net.echolith").hardware == design.hardware


@pytest.mark.parametrize("precision, options, message", [
    ({"word": "20 bits"}, {}, 'precision: word must be spelled like "12 bits" and have 8 to 18 of them, not '
                              "'20 bits'"),
    ({"product": "5 x 10 bits"}, {}, 'precision: product must be spelled like "4 x 11 bits", a weight and an operand '
                                     "of at least 2 bits, twice the weight and the operand at most 19 bits, not "
                                     "'5 x 10 bits'"),
    ({"product": "4 x 11 bits", "word": "12 bits"}, {}, "precision: packed products are of words of the board's width; "
                                                        "leave out word or product, not '12 bits'"),
    ("packed", {"lanes": 3}, "precision: two lanes share the multipliers of packed products; give an even number of "
                             "lanes, not 3"),
    ("packed", {"sizes": (5, 4, 2, 3)}, "precision: packed products take two columns at once; give the states an even "
                                        "number of units, not 5"),
    ("packed", {"board": "icebreaker"}, "precision: packed products need a board with room for overlapping sweeps; "
                                        "compile for ulx3s-85f or leave product out, not icebreaker"),
])
def test_what_packed_products_cannot_do_is_refused(precision, options, message):
    with pytest.raises(el.CompileError) as error:
        compiled(precision, **options)
    assert str(error.value) == message


# -- the RTL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision, sizes, lanes, steps, cost_at", [
    ("packed", (10, 13, 3, 4), 4, 5, "last"),  # several tiles, the last one filled in part
    ("packed", (10, 7, 3, 4), 8, 3, "every"),  # one tile: a column every cycle
    ({"word": "12 bits"}, SIZES, 4, 3, "last"),
])
def test_rtl_equals_the_integer_model(precision, sizes, lanes, steps, cost_at, simulate):
    design, *_ = compiled(precision, sizes, steps, lanes, cost_at)
    compare(design, simulate(design), 5, cost_at, 0.9)
    assert multipliers(design.hardware)["array"] == (lanes if precision == "packed" else 2 * lanes)


def test_packed_extremes_are_the_same_in_rtl(simulate):
    """The largest words: factors are clipped, gradients crowd, masters clip."""
    design, *_ = compiled("packed", (10, 13, 3, 4), 5, 4)
    chip, twin = simulate(design), IntegerDevice(design)
    generator = np.random.default_rng(3)
    wild = {name: generator.integers(-(1 << 35), 1 << 35, w.shape)
            for name, w in from_values(design, design.values).items()}
    x, y = data(generator, 3, 5, design.inputs, design.outputs, "last")
    x, y = words(design, x, y[:, None])
    for device in (chip, twin):
        device.write(wild)
        device.clear()
    got, want = chip.run("learn", x, y), twin.run("learn", x, y)
    assert (got.flags, got.response, got.leading) == (want.flags, want.response, want.leading)
    np.testing.assert_array_equal(got.outputs, want.outputs)
    same("gradient", twin.read_gradients(), chip.read_gradients())
    crowded = {name: generator.integers(-(1 << 31), 1 << 31, w.shape) for name, w in wild.items()}
    for device in (chip, twin):
        device.write_gradients(crowded)
    rates = {name: (70000, 1) for name in design.rates}
    got, want = chip.update(rates), twin.update(rates)
    assert got.flags == want.flags and got.saturated == want.saturated > 0
    same("master", twin.read(), chip.read())
    same("momentum", twin.read_gradients(), chip.read_gradients())
