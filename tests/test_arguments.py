"""Wrong arguments, data and declarations: one typed error each, with the whole text."""

import re
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import echolith as el

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.integers(-8, 9, (8, 4, 3)) / 8, GENERATOR.integers(0, 2, (8, 2)).astype(float)
CLASSES = GENERATOR.integers(0, 3, 8)


class Net(nn.Module):
    states, inputs, outputs = {"q": 6}, 3, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.B, self.C = nn.Linear(6, 4), nn.Linear(3, 4), nn.Linear(6, self.outputs)

    def energy(self, q, u):
        return q @ q + torch.tanh(self.W(q) + self.B(u)).sum()

    def cost(self, q, y):
        return ((self.C(q) - y) ** 2).sum()


class Shares(Net):
    outputs = 3

    def cost(self, q, y):
        return F.cross_entropy(self.C(q), y)


class Classes(Shares):
    def cost(self, q, y):
        return F.cross_entropy(self.C(q), y.long())


def compiled(model=None, **changed):
    given = dict(dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho(), calibrate=(X, Y), lanes=2)
    return el.compile(Net() if model is None else model, **{**given, **changed})


def refused(message, error=el.CompileError):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def holding(value):
    """A network that keeps something in a module of its own."""
    net = Net()
    net.W.kept = value
    return net


COPIED = ("Net.W.kept must be something that can be copied, as the model is for compiling; keep it outside the model, "
          "not ")
PAIR = "calibrate must be (X, Y) or (X, Y, mask), with (X, None) for inference alone, not a "
SHAPE = "X must have shape (batch, steps, inputs) = (any, any, 3)"
ARGUMENTS = {
    "a class": (dict(model=Net), "model must be an object, write Net(...), not the class Net"),
    "a function": (dict(model=lambda q, u: 0), "model must be a torch.nn.Module, not function"),
    "class of dynamics": (dict(dynamics=el.Leapfrog), "dynamics must be an object, write Leapfrog(...), not the class "
                                                      "Leapfrog"),
    "dynamics": (dict(dynamics=0.25), "dynamics must be el.Leapfrog(dt=0.25), not 0.25"),
    "rule": (dict(rule="echo"), "rule must be el.HamiltonianEcho(), another rule, or None, not 'echo'"),
    "board": (dict(board=["icebreaker"]), "board must be one of icebreaker, ulx3s-85f, not ['icebreaker']"),
    "lanes": (dict(lanes=2.0), 'lanes must be a whole number from 1 to 128 or "auto", not 2.0'),
    "no lanes": (dict(lanes=0), 'lanes must be a whole number from 1 to 128 or "auto", not 0'),
    "steps": (dict(steps=2.5), "steps must be a whole number of input rows, from 1 to 65535, not 2.5"),
    "steps and data": (dict(steps=5), "steps is for models without data, and the data have 4 rows per sample; leave it "
                                      "out, not 5"),
    "samples": (dict(samples=-1), "samples must be a whole number, not negative, not -1"),
    "like": (dict(like="a.echolith"), "like must be a compiled Design, not 'a.echolith'"),
    "precision": (dict(precision=[1]), 'precision must be "auto", "packed", a mapping of names to formats, or a '
                                       "Wanted, not [1]"),
    "bits": (dict(precision={"state": 17}), 'precision: state must be spelled as text, like "Q5.12", not 17'),
    "nonsense": (dict(precision={"state": "abc"}), "a format must be spelled like Q5.12 or ap_fixed<18,6>, not 'abc'"),
    "range": (dict(precision={"state": "Q5.40"}), "precision: state must have from 0 to 18 fraction bits, not 'Q5.40'"),
    "X alone": (dict(calibrate=(X,)), PAIR + "tuple of 1"),
    "no pair": (dict(calibrate=X), PAIR + "ndarray"),
    "ragged": (dict(calibrate=(["a", [1]], Y)), "X must be an array of numbers, not a list (setting an array element "
               "with a sequence. The requested array has an inhomogeneous shape after 1 dimensions. The detected shape "
               "was (2,) + inhomogeneous part.)"),
    "complex": (dict(calibrate=(X + 1j, Y)), "X must be an array of real numbers, not complex numbers"),
    "texts": (dict(calibrate=(X, Y.astype(str))), "Y must be an array of real numbers, not texts"),
    "none": (dict(calibrate=(None, Y)), "X must be an array of real numbers, not None"),
    "nan": (dict(calibrate=(X * np.nan, Y)), "X must be finite; X[0, 0, 0] is nan"),
    "huge": (dict(calibrate=(np.full_like(X, 1e30), Y)), "X must stay within 1e+09; divide it by a power of two, not "
                                                         "1e+30"),
    "whole numbers": (dict(calibrate=([[[10**400] * 3]] * 8, Y)), "X must stay within 1e+09; divide it by a power of "
                                                                  "two, not a number beyond float64"),
    "masked": (dict(calibrate=(np.ma.masked_less(X, 0), Y)), "X must be a plain array; give the mask apart, (X, Y, "
                                                            "mask), not a masked array"),
    "empty": (dict(calibrate=(X[:0], Y[:0])), "X must hold at least one sample and one step, not shape (0, 4, 3)"),
    "rows": (dict(calibrate=(X[:, 0], Y)), SHAPE + "; write X[:, None] for samples of one row, X[None] for one sample, "
                                                   "not (8, 3)"),
    "last": (dict(rule=el.HamiltonianEcho("every")), "Y must have shape (batch, steps, outputs) = (8, 4, 2); for one "
                                                     'target per sample use cost_at="last", not (8, 2)'),
    "not long": (dict(model=Shares(), calibrate=(X, CLASSES)), "Y must have shape (batch, outputs) = (8, 3); for class "
                                                               "numbers write y.long() in the cost, not (8,)"),
    "one-hot": (dict(model=Classes(), calibrate=(X, np.eye(3)[CLASSES])), "Y must have shape (batch) = (8); the cost "
                "takes class numbers, e.g. Y.argmax(-1), not (8, 3)"),
    "no method": (dict(model=type("N", (Net,), {"predict": 3})()), "N.predict must be a method, not 3"),
    "units": (dict(model=type("N", (Net,), {"states": {"q": 1 << 20}})()),
              "N.states must have at most 65536 units in all, not {'q': (1048576,)}"),
    "lock": (dict(model=holding(threading.Lock())), COPIED + "lock"),
    "generator": (dict(model=holding(i for i in range(3))), COPIED + "generator"),
    "not initialised": (dict(model=type("N", (Net,), {"__init__": lambda self: None})()),
                        "N.__init__ must call super().__init__() before all else, not N without it"),
    "no stack": (dict(model=type("S", (el.Stack,), {"__init__": nn.Module.__init__})()),
                 "S.__init__ must call super().__init__() before all else, not S without it"),
    "meta": (dict(model=Net().to("meta")), "W.weight must hold numbers; initialise the model before it is compiled, "
                                           "not a tensor without them"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_compile(name):
    changed, message = ARGUMENTS[name]
    with refused(message):
        compiled(**changed)


@pytest.mark.parametrize("make, message", [
    (lambda: el.Leapfrog("a"), "dt must be a positive number, not 'a'"),
    (lambda: el.Leapfrog(True), "dt must be a positive number, not True"),
    (lambda: el.Leapfrog(1e-30), "dt must be from 1e-06 to 1e+06; choose it about the time in which the states change, "
                                 "not 1e-30"),
    (lambda: el.Leapfrog(0.1, 10**7), "substeps must be a whole number from 1 to 65535, not 10000000"),
    (lambda: el.HamiltonianEcho(["last"]), 'cost_at must be "last", "every" or "mean", not [\'last\']'),
    (lambda: el.EchoBackpropagation(cost_at="every"), "EchoBackpropagation has its cost at the last step: cost_at must "
                                                      "be \"last\", not 'every'"),
    (lambda: el.LagrangianEcho(boundary=[]), 'boundary must be "final", "initial", "both" or "periodic", not []'),
    (lambda: el.Wanted("0.9"), "Wanted: cosine must be a number between 0 and 1, not '0.9'"),
    (lambda: el.Wanted(0.9, True), "Wanted: loss must be a number of points, not negative, not True"),
])
def test_choices(make, message):
    with refused(message):
        make()


@pytest.mark.parametrize("calibrate", [
    (X.tolist(), Y.tolist()), (torch.tensor(X, requires_grad=True), torch.tensor(Y).bfloat16()),
    ([torch.tensor(x) for x in X], Y.astype(bool)), (X.astype(object), Y.astype(np.int8)),
], ids=["lists", "tensors", "list of tensors", "objects"])
def test_what_holds_numbers_is_taken(calibrate):
    class Numpy(Net):
        states, inputs = {"q": np.int64(6)}, np.int32(3)

    design = compiled(Numpy(), calibrate=calibrate, dynamics=el.Leapfrog(np.float32(0.25), np.int64(2)), rule=None,
                      lanes=np.int64(2))
    expected = compiled(rule=None)
    assert design.program_id == expected.program_id and design.report == expected.report


@pytest.mark.parametrize("model, targets, last", [
    (Classes, CLASSES, np.eye(3)[CLASSES]),
    (Classes, np.stack([CLASSES * 0] * 3 + [CLASSES], 1), np.eye(3)[CLASSES]),
    (Net, np.stack([Y * 0] * 3 + [Y], 1), Y),
], ids=["classes", "classes of every row", "every row"])
def test_inference_takes_the_targets_of_any_rule(model, targets, last):
    for precision in ("auto", el.Wanted(loss=20)):
        found, expected = (compiled(model(), rule=None, calibrate=(X, y), precision=precision) for y in (targets, last))
        assert found.program_id == expected.program_id and found.report == expected.report


def test_inference_has_classes_that_are_there():
    with refused("Y must hold class numbers from 0 to 2, not 3"):
        compiled(Classes(), rule=None, calibrate=(X, CLASSES + 1))


@pytest.mark.parametrize("settings, message", [
    (dict(epochs=1.5), "epochs and batch_size must be whole numbers, at least 1, not 1.5 and 32"),
    (dict(batch_size="a"), "epochs and batch_size must be whole numbers, at least 1, not 1 and 'a'"),
    (dict(learning_rate=None), "learning_rate must be a finite number, not negative, not None"),
    (dict(momentum="a"), "momentum must be in [0, 1), not 'a'"),
    (dict(schedule=["cosine"]), "schedule must be one of constant, cosine, linear, not ['cosine']"),
    (dict(seed=-1), "seed must be a whole number, not negative, not -1"),
    (dict(progress=3), "progress must be a function of updates done, updates in all and loss, or None, not 3"),
    (dict(mask="a"), "mask must be an array of real numbers, not texts"),
])
def test_fit(settings, message):
    with compiled().open() as chip, refused(message, el.RangeError):
        chip.fit(X, Y, **settings)


@pytest.mark.parametrize("call, message", [
    (lambda c: c.predict(X + 1j), "X must be an array of real numbers, not complex numbers"),
    (lambda c: c.predict(X[0]), "X must have shape (batch, steps, inputs) = (any, 4, 3) for this design; write X[None] "
                                "for one sample, not (4, 3)"),
    (lambda c: c.gradient(X, None), "Y must be an array of real numbers, not None"),
    (lambda c: c.load_state_dict(3), "weights must be a state_dict or the path of a .safetensors file, not 3"),
    (lambda c: c.load_state_dict({"C.bias": [1e6, 0]}), "C.bias must be from -4 to 4, as far as the words of this "
                                                        "design go; compile the model with these weights, not 1e+06"),
    (lambda c: c.design.with_weights({"W.bias": [0, -1e300, 0, 0]}), "B.bias + W.bias must be from -4 to 4, as far as "
     "the words of this design go; compile the model with these weights, not -1e+300"),
    (lambda c: c.design.precision_report(X, Y, values={"C.bias": [1]}), "C.bias must have shape (2,), not (1,)"),
    (lambda c: c.design.precision_report(X, Y, values={"c": 1}), "parameter names are B.bias, B.weight, C.bias, "
                                                                 "C.weight, W.bias, W.weight, not 'c'"),
])
def test_sessions(call, message):
    with compiled().open() as chip, refused(message, el.RangeError):
        call(chip)


def test_links_and_other_designs(tmp_path):
    with compiled().open() as chip:
        for value in (None, "a.echolith"):
            with refused("switch takes a compiled Design, of a file echolith.load(path), not "
                         f"{value!r}", el.DesignMismatch):
                chip.switch(value)
            assert chip.predict(X).shape == (8, 2)
        for value in (None, 3):
            with refused(f"a link must be serial://<port>?baud=<rate>, not {value!r}", el.LinkError):
                chip.design.open(value)
        with refused("clock must be a number of Hz, not 'a'", el.ResourceError):
            chip.design.build(tmp_path / "never", clock="a")
    assert not (tmp_path / "never").exists()


def test_the_ends_of_the_words_are_loaded():
    """float32 makes the highest word the end of the range."""
    design = compiled()
    with design.open() as chip:
        chip.load_state_dict({"C.bias": [4.0, -4.0]})
        highest = chip.state_dict()["C.bias"]
        assert highest[0] == 4 - 2.0**-33 and highest[1] == -4
        chip.load_state_dict({"C.bias": highest.astype(np.float32)})
        np.testing.assert_array_equal(chip.state_dict()["C.bias"], highest)
        np.testing.assert_array_equal(design.with_weights(chip.state_dict()).values["C.bias"], highest)


class Own(Net):
    """A vector parameter of its own, and as many states as it is told."""

    def __init__(self, *names):
        super().__init__()
        self.states, self.k = dict.fromkeys(names, 6), nn.Parameter(torch.ones(6))

    def energy(self, *given):
        return super().energy(given[0], given[-1]) + sum((self.k * q * q).sum() for q in given[:-1])

    def cost(self, *given):
        return super().cost(given[0], given[-1])


FITS = "the network does not fit this hardware: "
FORMS = {
    "samples": (dict(samples=4), el.CompileError, "samples: the memory is that of the hardware of like=; leave samples "
                                                  "out, or compile without like=, not 4"),
    "lanes": (dict(lanes=4), el.CompileError, "lanes: the hardware of like= has 2; leave lanes out, or compile without "
                                              "like=, not 4"),
    "packed": (dict(precision="packed"), el.CompileError, "precision: the hardware of like= has no product; leave "
                                                          "product out, or compile without like=, not '4 x 11 bits'"),
    "word": (dict(precision={"word": "12 bits"}), el.CompileError, "precision: the hardware of like= has 18 bits for "
             "word; leave word out, or compile without like=, not '12 bits'"),
    "state": (dict(precision={"state": "Q2.15"}), el.CompileError, "precision: the hardware of like= has Q3.14 for "
              "state; leave state out, or compile without like=, not 'Q2.15'"),
    "vector": (dict(model=Own("q")), el.DesignMismatch, FITS + "vector parameters must be at most 0, not k"),
    "states": (dict(model=Own("q", "r")), el.DesignMismatch,
               FITS + "states must be q, not q, r; vector parameters must be at most 0, not k"),
    "name": (dict(model=type("N", (Net,), {"states": {"r": 6}})()), el.DesignMismatch,
             FITS + "states must be q, not r"),
    "inference": (dict(rule=None), el.DesignMismatch, FITS + "learn must be False, not True"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_given_hardware_is_not_asked_for_what_it_has_not(name):
    changed, error, message = FORMS[name]
    with refused(message, error):
        compiled(like=compiled(), **changed)


def test_a_rule_needs_hardware_that_learns():
    with refused(FITS + "learn must be True, not False", el.DesignMismatch):
        compiled(like=compiled(rule=None))


def test_given_hardware_may_be_asked_for_what_it_has():
    design = compiled()
    for asked in (dict(precision=design.precision), dict(precision={"state": "ap_fixed<18,4>"}), dict(lanes=None)):
        assert compiled(like=design, **asked).hardware == design.hardware
