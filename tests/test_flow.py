"""The verifier between passes and graph finds what is wrong, and nothing where nothing is."""

import dataclasses

import numpy as np
import pytest
from energies import MODELS, STEPS, Deep, Tied

from echolith.compiler import numeric
from echolith.compiler.agree import agree
from echolith.compiler.calibrate import calibrate
from echolith.compiler.capture import capture
from echolith.compiler.differentiate import names
from echolith.compiler.errors import CompileError
from echolith.compiler.flow import derive
from echolith.compiler.ir import const
from echolith.compiler.isa import Opcode
from echolith.compiler.ops import mul
from echolith.compiler.prepare import prepared
from echolith.compiler.select import select

DT = 0.3


def lowered(model):
    graph = prepared(capture(model()))
    flow = derive(graph, DT, True)
    passes = select(flow, tuple(graph.states))
    x = np.random.default_rng(0).uniform(-1, 1, (4, STEPS, graph.inputs))
    return graph, flow, passes, calibrate(graph, passes, flow, x, np.zeros((4, 1, graph.outputs)), DT, 2, "last")


@pytest.mark.parametrize("model", MODELS)
def test_passes_agree_with_the_graph(model):
    graph, flow, passes, samples = lowered(model)
    agree(graph, flow, passes, samples, DT, True)
    elsewhere = {f"C_{s}" for s in graph.states}.union(*map(names, graph.kinetic.values()))
    assert set(numeric.gradient(graph, *_point(graph, samples))) >= graph.learned - elsewhere


def _point(graph, samples):
    return {s: samples.values[s][:2] for s in graph.states}, samples.values["u"][:2]


def test_a_wrong_force_is_found():
    graph, flow, passes, samples = lowered(Deep)
    wrong = [dataclasses.replace(p, expr=mul(const(1.001), p.expr)) if p.state else p for p in passes]
    with pytest.raises(CompileError, match=r"^energy: the force on q on the chip must equal the derivative of the "
                                           r"energy within 1e-09; this is a defect of the compiler, not"):
        agree(graph, flow, wrong, samples, DT, True)


def test_a_missing_update_is_found():
    graph, flow, passes, samples = lowered(Tied)
    first = next(i for i, p in enumerate(passes) if p.opcode == Opcode.OUTER and p.matrix == "W")
    with pytest.raises(CompileError, match=r"^energy: the update of W on the chip"):
        agree(graph, flow, passes[:first] + passes[first + 1:], samples, DT, True)
