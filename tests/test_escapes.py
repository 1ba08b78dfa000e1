"""Values that leave the tensors and derivatives that autograd does not see are refused with line, operation, remedy."""

import math
import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from echolith.compiler.capture import capture
from echolith.compiler.errors import CompileError

N = 6
LINE = r", at `test_escapes\.py:\d+: .*`; "


class Parts(nn.Module):
    states, inputs, outputs = {"q": N}, 3, 2

    def __init__(self):
        super().__init__()
        self.W, self.k = nn.Linear(N, 4), nn.Parameter(torch.rand(N) + 0.5)
        self.norm, self.attention = nn.BatchNorm1d(N), nn.MultiheadAttention(N, 2)
        self.register_buffer("edges", torch.tensor([[0, 1], [1, 2], [5, 0]]))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("gain", torch.tensor(0.5))
        self.register_buffer("trace", torch.zeros(N))


def model(energy, **methods) -> nn.Module:
    return type("Model", (Parts,), {"energy": energy, **methods})()


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.sign(x)

    @staticmethod
    def backward(ctx, g):
        return g


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, g):
        return g / torch.cosh(ctx.saved_tensors[0]) ** 2


def without_gradients(s, q, u):
    with torch.no_grad():
        w = torch.tanh(q)
    return (q * q + w * q).sum()


def learned_without_gradients(s, q, u):
    with torch.no_grad():
        w = 2 * s.k
    return (s.k * q * q + w * q).sum()


def inference(s, q, u):
    with torch.inference_mode():
        w = torch.tanh(q)
    return (q * q + w * q).sum()


def loop(s, q, u):
    e = (q * q).sum()
    while e > 1:
        e = e / 2
    return e


def counted(s, q, u):
    s.calls = getattr(s, "calls", 0) + 1
    return s.calls * (q * q).sum()


def kept(s, q, u):
    if not hasattr(s, "first"):
        s.first = torch.tanh(q)
    return (q * s.first).sum()


def remembered(s, q, u):
    """In a buffer, which PyTorch's functional calls put back."""
    s.trace = 0.9 * s.trace + 0.1 * q
    return (q * q).sum() + q @ s.trace


def inner(s, q, u):
    return (q * q).sum() + torch.autograd.grad((q**3).sum(), q)[0].sum()


def hooked(s, q, u):
    if q.requires_grad:
        q.register_hook(lambda g: 2 * g)
    return (q * q).sum()


REMEDY = "compute with tensors, not a value known only at run time"
ARRAY = "write it with torch functions, not a value known only at run time"
BRANCH = "write a branch with torch.where, and run loops a fixed number of times, not a value known only at run time"
STACK = "join tensors with torch.stack or torch.cat, not a value known only at run time"
NO_GRAD = r"torch\.no_grad\(\) hides a dependence" + LINE + (
    r"remove it, or freeze with requires_grad_\(False\), not no_grad")
STATEFUL = (r"the method is not a function of its arguments; remove what changes from call to call: numbers of random "
            r"or numpy\.random, counters, tensors kept on self, not \S+ and \S+ at the same point")


def taken(how: str, remedy: str) -> str:
    return rf"a Python value is taken from a tensor \({re.escape(how)}\)" + LINE + re.escape(remedy)


REFUSED = {
    "no_grad": (without_gradients, NO_GRAD),
    "no_grad on parameters": (learned_without_gradients, NO_GRAD),
    "inference_mode": (inference, NO_GRAD),
    "tolist": (lambda s, q, u: (q * q).sum() + sum(q.tolist()) * q[0], taken(".tolist()", REMEDY)),
    "detach and numpy": (
        lambda s, q, u: (q * torch.from_numpy(np.tanh(q.detach().numpy()))).sum(), taken(".numpy()", ARRAY)),
    "numpy": (lambda s, q, u: (q * torch.from_numpy(q.numpy())).sum(), taken(".numpy()", ARRAY)),
    "numpy of a parameter": (lambda s, q, u: (q * torch.tensor(s.k.detach().numpy())).sum(), taken(".numpy()", ARRAY)),
    "np.tanh": (lambda s, q, u: np.tanh(q).sum(), taken("a numpy function", ARRAY)),
    "item": (lambda s, q, u: (q * q).sum() * q[0].item(), taken(".item()", REMEDY)),
    "item of a parameter": (lambda s, q, u: (q * q).sum() * s.k[0].item(), taken(".item()", REMEDY)),
    "float": (lambda s, q, u: float(q.sum()) * q.sum(), taken("float()", REMEDY)),
    "math": (lambda s, q, u: math.tanh(q.sum()) * q.sum(), taken("float()", REMEDY)),
    "inputs": (lambda s, q, u: (q * q).sum() * (1 + u[0].item()), taken(".item()", REMEDY)),
    "if": (lambda s, q, u: q @ q if q.sum() > 0 else 2 * q @ q, taken("if, while, and, or", BRANCH)),
    "max": (lambda s, q, u: max(q), taken("if, while, and, or", BRANCH)),
    "while": (loop, taken("if, while, and, or", BRANCH)),
    "range": (lambda s, q, u: sum(q[i] ** 2 for i in range(int(q.sum()))), taken("int()", BRANCH)),
    "tensor of tensors": (
        lambda s, q, u: torch.tensor([q[0], q[1]]).sum() * q[0],
        r"torch\.tensor\(\) copies numbers out of tensors" + LINE + re.escape(STACK)),
    "tensor of a tensor": (lambda s, q, u: torch.tensor(q) @ q, r"detach \(or \.data\) hides a dependence" + LINE),
    "detach in place": (
        lambda s, q, u: q.clone().detach_() @ q, r"detach_\(\) hides a dependence" + LINE + "remove it"),
    "picked elements": (
        lambda s, q, u: q[q > 0].sum(),
        "elements are picked by values of states or inputs" + LINE
        + re.escape("use torch.where(q > 0, q, 0) or fixed numbers, not index")),
    "straight through": (
        lambda s, q, u: (q * q).sum() + Straight.apply(s.W(q)).sum(),
        r"the backward of autograd\.Function Straight is not the derivative of its forward" + LINE
        + "write the energy whose derivative you want in torch functions, not Straight"),
    "random": (lambda s, q, u: random.random() * (q * q).sum(), STATEFUL),
    "numpy.random": (lambda s, q, u: np.random.rand() * (q * q).sum(), STATEFUL),
    "counter": (counted, STATEFUL),
    "cache": (kept, STATEFUL),
    "buffer": (remembered, STATEFUL),
    "autograd inside": (
        inner, r"torch\.autograd in the method" + LINE + r"use torch\.func\.grad, or write the derivative out, not "),
    "compiled": (
        lambda s, q, u: torch.compile(lambda x: (x * x).sum())(q),
        r"torch\.compile in the method" + LINE + r"call the function without torch\.compile, not "),
    "float32": (
        lambda s, q, u: torch.ones(N, dtype=torch.float32) @ q,
        "numbers of two types" + LINE + "keep float64, the type of all arguments: leave out dtype=, not "),
    "batch normalisation of one": (
        lambda s, q, u: s.norm(q[None]).sum(),
        "batch normalisation in training mode" + LINE + r"call model\.eval\(\), not"),
    "batch normalisation": (
        lambda s, q, u: s.norm(torch.stack([q, 2 * q])).cos().sum(),
        "batch normalisation in training mode" + LINE + r"call model\.eval\(\), not native_batch_norm"),
    "complex": (
        lambda s, q, u: (q * torch.tensor(1j)).abs().sum(),
        "complex numbers are not supported" + LINE + "write real and imaginary parts apart, not mul"),
    "hook": (
        hooked,
        "autograd does not give the derivative of what the method computes; remove hooks on gradients, not hooks"),
    "typo": (
        lambda s, q, u: s.V(q).sum(), "the method raised AttributeError" + LINE + "correct it, not 'Model' object"),
    "list": (lambda s, q, u: [q.sum()], "the result is not a tensor; return one tensor .*, not a list of 1"),
    "tuple": (lambda s, q, u: (q.sum(), q), "the result is not a tensor; return one tensor .*, not a tuple of 2"),
    "no return": (lambda s, q, u: None, "the result is not a tensor; return one tensor .*, not None"),
    "truth value": (lambda s, q, u: q.sum() > 0, "the result is not a tensor of real numbers; .*, not torch.bool"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    energy, message = REFUSED[name]
    with pytest.raises(CompileError, match="^energy: " + message):
        capture(model(energy))


def test_costs_are_watched_too():
    with pytest.raises(CompileError, match=r"^cost: a Python value is taken from a tensor \(int\(\)\)" + LINE):
        capture(model(lambda s, q, u: q @ q, cost=lambda s, q, y: F.cross_entropy(s.W(q)[:2], int(y[0]))))


def masked(s, q, u):
    with torch.no_grad():
        inside = (q > 0).double()
    return (inside * q * q).sum() + q.sum()


ACCEPTED = {
    "numbers of a buffer": lambda s, q, u: sum((q[i] - q[j]) ** 2 for i, j in s.edges.tolist()),
    "loop over a buffer": lambda s, q, u: sum(q[i] ** 2 for i in range(int(s.count))) * s.gain.item(),
    "branch on a buffer": lambda s, q, u: q @ q if s.gain > 0 else q.sum(),
    "printed": lambda s, q, u: (f"{q.sum():.3f} {q}", q @ q)[1],
    "a function with its own derivative": lambda s, q, u: Tanh.apply(s.W(q)).sum(),
    "a mask without gradients": masked,
    "attention to one element": lambda s, q, u: q @ q + s.attention(q[None], q[None], q[None])[0].cos().sum(),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name):
    assert capture(model(ACCEPTED[name])).energy
