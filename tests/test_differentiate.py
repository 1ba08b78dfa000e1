"""Derivatives and values of expressions, against torch.autograd on the same operation."""

import numpy as np
import pytest
import torch

from echolith.compiler.differentiate import derivative, evaluate, is_univariate, names, substitute
from echolith.compiler.ir import const, param, var
from echolith.compiler.ops import OPS, add, apply, div, mul, neg, power, sub
from echolith.compiler.spellings import ELEMENTWISE

Z = var("z")
POINTS = np.array([-0.83, -0.31, 0.17, 0.52, 0.94])
ABOVE_ONE = ("acosh",)
POSITIVE = ("log", "sqrt", "rsqrt", "log2", "log10", "logit")


def points(name: str) -> np.ndarray:
    return POINTS + 2 if name in ABOVE_ONE else np.abs(POINTS) if name in POSITIVE else POINTS


def autograd(function, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    t = torch.tensor(x, requires_grad=True)
    value = function(t)
    (slope,) = torch.autograd.grad(value.sum(), t)
    return value.detach().numpy(), slope.numpy(force=True)


UNARY = sorted(
    name for name in ELEMENTWISE
    if hasattr(torch.ops.aten, name) and name not in (
        "add", "sub", "rsub", "mul", "multiply", "div", "true_divide", "pow", "float_power", "maximum", "minimum",
        "gt", "ge", "lt", "le", "where", "addcmul", "addcdiv", "lerp", "hypot", "logaddexp", "xlogy", "special_xlogy",
        "clamp", "clamp_min", "clamp_max", "log_sigmoid_forward", "atan2", "copysign", "fmax", "fmin", "logaddexp2",
        "threshold",
    ) and not name.strip("_").endswith(("and", "or", "not"))
)  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_unary_operator_equals_autograd(name):
    expr = ELEMENTWISE[name](Z)
    x = points(name)
    value, slope = autograd(getattr(torch.ops.aten, name), x)
    np.testing.assert_allclose(np.broadcast_to(evaluate(expr, {"z": x}), x.shape), value, rtol=1e-12, atol=1e-14)
    found = np.broadcast_to(evaluate(derivative(expr, "z"), {"z": x}), x.shape)
    np.testing.assert_allclose(found, slope, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "minimum", "hypot", "logaddexp", "atan2",
                                  "copysign", "fmax", "fmin", "logaddexp2"])
@pytest.mark.parametrize("argument", [0, 1])
def test_binary_operator_equals_autograd(name, argument):
    other = np.array([0.4, -1.3, 0.8, -0.6, 0.2])
    pair = (var("x"), var("y")) if argument == 0 else (var("y"), var("x"))
    expr = ELEMENTWISE[name](*pair)
    tensor = torch.tensor(other)
    function = getattr(torch.ops.aten, name)
    _, slope = autograd(lambda t: function(t, tensor) if argument == 0 else function(tensor, t), POINTS)
    found = np.broadcast_to(evaluate(derivative(expr, "x"), {"x": POINTS, "y": other}), POINTS.shape)
    np.testing.assert_allclose(found, slope, rtol=1e-12)


@pytest.mark.parametrize("exponent", [2, 3, 7, 0.5, -1.5])
def test_power_by_a_number(exponent):
    x = np.abs(POINTS)
    _, slope = autograd(lambda t: t**exponent, x)
    np.testing.assert_allclose(evaluate(derivative(power(Z, exponent), "z"), {"z": x}), slope, rtol=1e-12)


def test_power_of_a_number_and_of_an_expression():
    x = np.abs(POINTS)
    _, slope = autograd(lambda t: 2.5**t + t**t, x)
    expr = add(apply("pow", 2.5, Z), apply("pow", Z, Z))
    np.testing.assert_allclose(evaluate(derivative(expr, "z"), {"z": x}), slope, rtol=1e-12)


def test_every_operation_is_checked_against_autograd_somewhere():
    covered = {name for name, op in OPS.items() if set(op.aten) & set(UNARY)}
    elsewhere = {"add", "sub", "mul", "div", "pow", "maximum", "minimum", "softplus", "gt", "ge", "lt", "le", "where"}
    assert covered | elsewhere == set(OPS)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_both_gelus(approximate):
    value, slope = autograd(lambda t: torch.nn.functional.gelu(t, approximate=approximate), POINTS)
    expr = ELEMENTWISE["gelu"](Z, approximate=approximate)
    np.testing.assert_allclose(evaluate(expr, {"z": POINTS}), value, rtol=1e-12)
    np.testing.assert_allclose(evaluate(derivative(expr, "z"), {"z": POINTS}), slope, rtol=1e-12)


def test_where_does_not_leak_the_branch_not_taken():
    expr = apply("where", apply("gt", Z, 0), apply("sqrt", Z), neg(Z))
    found = evaluate(derivative(expr, "z"), {"z": np.array([-1.0, 0.0, 4.0])})
    np.testing.assert_allclose(found, [-1, -1, 0.25])


LARGE = {
    "log(cosh z)": apply("log", apply("cosh", Z)),
    "log(1 + exp z)": apply("log", add(apply("exp", Z), 1)),
    "log1p(exp z)": apply("log1p", apply("exp", Z)),
    "softplus": apply("softplus", Z),
    "log(sigmoid z)": apply("log", apply("sigmoid", Z)),
    "log(1 - sigmoid z)": apply("log", sub(1, apply("sigmoid", Z))),
    "1/(1 + exp -z)": div(1, add(apply("exp", neg(Z)), 1)),
    "gelu": ELEMENTWISE["gelu"](Z),
    "silu": ELEMENTWISE["silu"](Z),
    "mish": ELEMENTWISE["mish"](Z),
    "elu": ELEMENTWISE["elu"](Z),
    "sqrt(1 + z^2)": apply("sqrt", add(power(Z, 2), 1)),
    "exp(-z^2)": apply("exp", neg(power(Z, 2))),
}


@pytest.mark.parametrize("name", LARGE)
def test_values_and_two_derivatives_are_finite_up_to_64(name):
    z = np.linspace(-64, 64, 1025)
    first = derivative(LARGE[name], "z")
    for expr in (LARGE[name], first, derivative(first, "z")):
        assert np.isfinite(evaluate(expr, {"z": z})).all(), expr


def test_log_cosh_has_the_derivative_tanh():
    assert str(derivative(apply("log", apply("cosh", Z)), "z")) == "tanh(z)"


def test_bce_written_out_has_the_derivative_of_the_logit_form():
    y, t = var("y"), var("target")
    p = apply("sigmoid", y)
    written = neg(add(mul(t, apply("log", p)), mul(sub(1, t), apply("log", sub(1, p)))))
    env = {"y": np.array([-60.0, -3.0, 0.0, 2.0, 60.0]), "target": np.array([0.0, 1.0, 0.5, 0.0, 1.0])}
    found = evaluate(derivative(written, "y"), env)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-env["y"])) - env["target"], atol=1e-15)


def test_simplification():
    q, k = var("q"), param("k")
    assert str(derivative(mul(0.5, mul(mul(k, q), q)), "q")) == "(k*q)"
    assert str(derivative(mul(0.5, mul(mul(k, q), q)), "k")) == "(0.5*pow(q, 2))"
    assert str(derivative(power(q, 2), "q")) == "(2*q)"
    assert derivative(apply("sin", q), "z") == const(0)
    assert derivative(add(mul(3, q), 5), "q") == const(3)
    assert sub(q, q) == const(0)
    assert mul(1, add(q, 0)) is apply("mul", q, 1)


def test_equal_expressions_are_one_node():
    q = var("q")
    assert apply("sin", add(q, 1)) is apply("sin", add(var("q"), 1))


def test_shared_nodes_are_visited_once():
    expr = var("z")
    for _ in range(60):  # as a tree this has 2^60 leaves
        expr = mul(0.5, add(apply("sin", expr), apply("cos", expr)))
    t = torch.tensor(POINTS, requires_grad=True)
    value = t
    for _ in range(60):
        value = 0.5 * (torch.sin(value) + torch.cos(value))
    (slope,) = torch.autograd.grad(value.sum(), t)
    np.testing.assert_allclose(evaluate(expr, {"z": POINTS}), value.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(evaluate(derivative(expr, "z"), {"z": POINTS}), slope.numpy(), rtol=1e-10)


def test_names_univariate_substitute():
    q, k = var("q"), param("k")
    expr = add(mul(k, q), apply("sin", q))
    assert names(expr) == {"q", "k"} == expr.variables()
    assert is_univariate(apply("sin", q)) and not is_univariate(expr) and not is_univariate(const(1))
    assert not is_univariate(mul(var("y"), var("target")))
    assert substitute(expr, {"k": const(2), "q": const(0)}) == const(0)
    assert str(substitute(expr, {"q": var("x")})) == "((k*x) + sin(x))"


def test_evaluate_broadcasts_and_stays_float64():
    q, k = np.ones((3, 4), np.float32), np.arange(4)
    found = evaluate(mul(param("k"), var("q")), {"q": q, "k": k})
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.tile(np.arange(4.0), (3, 1)))


def test_overflow_is_a_value_not_a_warning(recwarn):
    assert evaluate(apply("exp", var("z")), {"z": np.array(1e3)}) == np.inf
    assert not recwarn.list
