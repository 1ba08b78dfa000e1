"""The compiled integer model equals the one on numpy in every word, and both keep what the arithmetic says."""

import ctypes

import numpy as np
import pytest
import torch
from energies import Gathers, Masses, Relativistic, Softmax
from test_general import case
from test_machine import base, data
from test_packed import compiled as packed

import echolith as el
from echolith.compiler.pipeline import table_lookup
from echolith.sim import arith, compiled, steps
from echolith.sim.arrays import Arrays
from echolith.sim.compiled import Compiled
from echolith.sim.golden import extreme
from echolith.sim.model import IntegerModel
from echolith.sim.simulator import compiler
from echolith.sim.steps import plain
from echolith.sim.terms import OR, function
from echolith.sim.weights import from_values, load

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

WIDTH = 18
FUNCTIONS = {
    "wrap": lambda x, y: arith.wrap(x, WIDTH),
    "outside": lambda x, y: arith.outside(x, WIDTH),
    "sat": lambda x, y: arith.sat(x, WIDTH),
    "rnd": lambda x, y: arith.rnd(x, 7),
    "even": lambda x, y: arith.even(x, 1) + arith.even(x, 5),
    "more bits": lambda x, y: arith.rnd(x, -3),
    "shr": lambda x, y: arith.shr(x, y & 31),
    "unless": lambda x, y: arith.unless(x, y, -5),
    "abs_bits": lambda x, y: arith.abs_bits(x),
    "forward": lambda x, y: arith.move(x, y, 0, False),
    "reverse": lambda x, y: arith.move(x, y, 3, True),
    "product": lambda x, y: 12 - x * (y & 1023),
}


def words(count=4000):
    """Of all sizes up to 40 bits, both signs."""
    generator = np.random.default_rng(0)
    return generator.integers(-(1 << 40), 1 << 40, (2, count)) >> generator.integers(0, 41, (2, count))


def test_terms_of_c_mean_what_numpy_does():
    names = [name.replace(" ", "_") for name in FUNCTIONS]
    text = function("f", lambda x, _: dict(zip(names, (f(x["x"], x["y"]) for f in FUNCTIONS.values()), strict=True)),
                    {"x": "int64_t", "y": "int64_t"}, dict.fromkeys(names, "int64_t"))
    f = ctypes.CDLL(str(compiled._library("#include <cstdint>\n" + text))).f
    x, y = words()
    y[::7] = -5
    found = np.zeros((len(names), x.size), np.int64)
    places = [ctypes.c_void_p(a.ctypes.data) for a in (x, y, *found)]
    f(ctypes.c_long(1), ctypes.c_long(x.size), *(part for p in places for part in (p, ctypes.c_long(0))))
    for name, meaning, got in zip(FUNCTIONS, FUNCTIONS.values(), found, strict=True):
        np.testing.assert_array_equal(got, meaning(x, y), name)


def test_a_function_of_c_overwrites_reads_rows_and_returns_the_or():
    text = function("f", lambda x, tables: {"q": tables[2][x["q"] & 1, 1] + x["row"], "half": x["q"], OR: x["q"]},
                    {"q": "int64_t", "row": "int64_t/row"}, {"q": "int64_t", "half": "double"}, (2,))
    f = ctypes.CDLL(str(compiled._library("#include <cstdint>\n" + text))).f
    q, row, half = np.array([[1, 2, 4], [8, 16, 33]]), np.array([100, 200]), np.zeros((2, 3))
    table = compiled._halves(np.array([[-3, 5], [1, -7]]))
    rows = [(q, 3), (row, 1), (half, 3)]
    places = [part for a, n in rows for part in (ctypes.c_void_p(a.ctypes.data), ctypes.c_long(n))]
    assert f(ctypes.c_long(2), ctypes.c_long(3), *places, ctypes.c_void_p(table.ctypes.data)) == 63
    assert q.tolist() == [[93, 105, 105], [205, 205, 193]] and half.tolist() == [[1, 2, 4], [8, 16, 33]]


def networks():
    yield base("four lanes"), None
    yield packed("packed", cost_at="every")[0], None
    for model, cost_at in ((Relativistic, "last"), (Gathers, "every"), (Masses, "last"), (Softmax, "last")):
        _, design, x, y = case(model, cost_at)
        yield design, (x, y)


@pytest.mark.parametrize("number", range(6), ids=["oscillators", "packed", "relativistic", "gathers", "masses",
                                                  "softmax"])
@pytest.mark.parametrize("huge", [False, True], ids=["trained", "huge"])
def test_every_word_is_the_same(number, huge):
    """Also with weights so large that sums clip and states wrap. Of more samples than C takes at a time."""
    design, samples = list(networks())[number]
    d = design.dynamics
    assert plain(design) == (number < 3)
    x, y = samples or data(np.random.default_rng(1), 29, d.steps, design.inputs, design.outputs, d.cost_at)
    weights = extreme(design, 1) if huge else from_values(design, design.values)
    models = [IntegerModel(design), IntegerModel(design, Compiled(design))]
    seen = [_everything(model, weights, *_words(design, x[:29], y[:29])) for model in models]
    for name, want in seen[0].items():
        np.testing.assert_equal(seen[1][name], want, name)
    assert seen[0]["learn"][1].wrapped == (huge and number != 1) and np.any(seen[0]["gradients"][design.blocks[0].name])


def test_without_copy_0_the_same_is_learned():
    design = base("four lanes")
    x, y = data(np.random.default_rng(1), 5, 8, design.inputs, design.outputs, "last")
    seen = []
    for checked, arrays in ((True, Arrays), (False, Arrays), (False, Compiled)):
        model = IntegerModel(design, arrays(design))
        load(model, design.values)
        seen.append((*model.learn(*_words(design, x, y), checked), model.gradients, model.vector_gradients))
    np.testing.assert_equal(seen[1:], [seen[0], seen[0]])


class Springs(torch.nn.Module):
    """No matrix but the read-out's."""

    states, inputs, outputs = {"q": 5}, 1, 2

    def __init__(self):
        super().__init__()
        self.C, self.k = torch.nn.Linear(5, 2), torch.nn.Parameter(torch.ones(5))

    def energy(self, q, u):
        return (2 * self.k * q**2 + 0.3 * q).sum()

    def cost(self, q, y):
        return 0.5 * ((self.C(q) - y) ** 2).sum()


def test_a_force_of_the_neuron_unit_alone():
    x, y = np.zeros((30, 8, 1)), np.ones((30, 2))
    design = el.compile(Springs(), dynamics=el.Leapfrog(0.25), rule=el.HamiltonianEcho(), calibrate=(x, y), lanes=1)
    seen = []
    for arrays in (Arrays, Compiled):
        model = IntegerModel(design, arrays(design))
        load(model, design.values)
        seen.append([*model.learn(*_words(design, x, y)), model.gradients, model.vector_gradients])
    np.testing.assert_equal(seen[1], seen[0])
    assert plain(design) and seen[0][3][0].any()


class Watched(Compiled):
    """Knows whether steps were taken at once."""

    def step(self, force):
        self.whole = super().step(force)
        return self.whole


def test_steps_whose_sums_may_not_be_exact_are_taken_apart(monkeypatch):
    design = base("four lanes")
    x, y = _words(design, *data(np.random.default_rng(1), 5, 8, design.inputs, design.outputs, "last"))
    seen = []
    for exact in (53, 20):
        monkeypatch.setattr(steps, "EXACT", exact)
        model = IntegerModel(design, watched := Watched(design))
        load(model, design.values)
        seen.append((*model.learn(x, y), model.gradients, model.vector_gradients))
        assert watched.whole == (exact == 53)
    np.testing.assert_equal(seen[1], seen[0])


def _words(design, x, y):
    from echolith.sim.data import words

    return words(design, x, y if design.dynamics.cost_at == "every" else y[:, None])


def _everything(model, weights, x, target):
    """All that a model does and holds, by name."""
    model.masters = {b.name: weights[b.name].copy() for b in model.design.blocks}
    model.vectors = [weights[f"vector{i}"].copy() for i in range(len(model.design.vectors))]
    seen = {"predict": model.predict(x), "learn": model.learn(x, target)}
    state, outcome = model.echo(x)
    seen |= {"q": state.q, "p": state.p, "echo": outcome, "gradients": dict(model.gradients),
             "vector gradients": list(model.vector_gradients)}
    rates = {name: (900 + 7 * i, 1) for i, name in enumerate(model.design.rates)}
    return seen | {"update": model.update(rates), "masters": model.masters, "vectors": model.vectors}


def test_sessions_learn_alike():
    design = base("one lane")
    x, y = data(np.random.default_rng(2), 9, 8, design.inputs, design.outputs, "last")
    with design.open("int:") as a, design.open("int:compiled") as b:
        histories = [chip.fit(x, y, epochs=2, batch_size=4, momentum=0.5) for chip in (a, b)]
        assert histories[0] == histories[1]
        np.testing.assert_equal(b.state_dict(), a.state_dict())


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    with pytest.raises(el.ResourceError) as error:
        base("one lane").open("int:compiled")
    assert str(error.value) == ("the compiled integer model needs a C++ compiler, and none was found: sudo apt install "
                                "g++, or open int:, not int:compiled")


def test_a_table_answers_alike_before_and_after_its_results_are_kept():
    hw = base("one lane").hardware
    table = base("one lane").tables[0]
    lookup = Arrays(base("one lane"))._tables[0]
    x = np.arange(-(1 << hw.width - 1), 1 << hw.width - 1)
    want = table_lookup(x, table, hw.width, hw.segments)
    assert not lookup._results.size
    for _ in range(2):
        np.testing.assert_array_equal(lookup(x), want)
        assert lookup._results.size == x.size


@pytest.mark.parametrize("rows, depth, columns", [(1, 1, 1), (5, 3, 7), (25, 64, 64), (64, 300, 9), (13, 129, 41),
                                                  (4, 0, 8), (3, 0, 5)])
def test_products_are_those_of_numpy(rows, depth, columns):
    """Also of transposed and cut matrices."""
    product = Compiled(base("one lane")).exact
    generator = np.random.default_rng(0)
    a, b = (generator.integers(-(1 << 17), 1 << 17, shape) for shape in ((rows, depth), (depth, columns + 2)))
    want = a @ b[:, 1:-1]
    for left in (a, np.ascontiguousarray(a.T).T):
        np.testing.assert_array_equal(product(left.astype(float), b.astype(float)[:, 1:-1]), want)
    np.testing.assert_array_equal(product(a, b[:, 1:-1]), want)


def test_a_circuit_takes_sums_or_their_factors():
    design = base("one lane")
    arrays, [activate] = Compiled(design), design.hardware.activate
    generator = np.random.default_rng(0)
    a, b, drive = (generator.integers(-999, 999, shape) for shape in ((37, 30), (30, 11), (37, 11)))
    want = Arrays(design).run(activate, {"acc": a @ b, "drive": drive})["t"]
    for cut in (a[:, ::-1], np.asfortranarray(a), a.astype(float)):
        factors = arrays.sums(cut, np.ascontiguousarray(b[::-1] if cut.strides[1] < 0 else b).astype(float))
        assert factors.shape == want.shape
        for acc in (factors, factors.reshape(37, 11)):
            np.testing.assert_array_equal(arrays.run(activate, {"acc": acc, "drive": drive})["t"], want)


def test_sums_that_float64_cannot_hold_are_refused():
    arrays = Arrays(base("one lane"))
    ones = np.ones((1, 1 << 20), np.int64)
    assert arrays.product(ones, ones.T * 3) == [[3 << 20]]
    with pytest.raises(OverflowError) as error:
        arrays.product(ones << 17, ones.T << 17)
    assert str(error.value) == "a sum of products must stay below 2^53 for exact BLAS, not 1.8e+16"
