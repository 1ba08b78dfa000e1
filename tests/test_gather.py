"""Index couplings and convolutions: what they become, what they cost, what is refused."""

import itertools
import re

import numpy as np
import pytest
import torch
from energies import INPUTS, Local, Model, Network, Phases, Waves, log_cosh
from test_general import case, cosine
from torch import nn

import echolith as el
from echolith.compiler import convolve, gathers
from echolith.compiler.graph import Convolution, Index, Term
from echolith.compiler.ir import var
from echolith.compiler.isa import Opcode
from echolith.compiler.patches import patches
from echolith.compiler.reference import bptt


def matrix(of, columns):
    found = np.zeros((len(of), columns))
    for row, column in enumerate(of):
        if column >= 0:
            found[row, column] = 1
    return found


def test_a_move_and_its_transpose_are_sums_of_gathers():
    random = np.random.default_rng(0)
    for _ in range(20):
        rows, columns = random.integers(1, 9, 2)
        indices = [Index(tuple(random.integers(-1, columns, rows).tolist())) for _ in range(3)]
        whole = sum(matrix(i.of, columns) for i in indices)
        back = gathers.adjoint(indices, columns)
        np.testing.assert_array_equal(sum((matrix(of, rows) for of in back), np.zeros((columns, rows))), whole.T)
        assert len(back) == whole.sum(0).max()
        terms = gathers.gathered([Term(i, var("q"), 2.0) for i in indices], rows)
        np.testing.assert_array_equal(sum((matrix(t.matrix.of, columns) for t in terms), np.zeros_like(whole)), whole)
        assert len(terms) == whole.sum(1).max()


GEOMETRIES = [((1,), (0,), (1,)), ((2,), (1,), (1,)), ((1,), (2,), (2,)), ((3, 1), (1, 0), (1, 2)),
              ((1, 2), (0, 2), (2, 1))]


@pytest.mark.parametrize("stride, padding, dilation", GEOMETRIES)
@pytest.mark.parametrize("transposed, groups", list(itertools.product([False, True], [1, 2])))
def test_patches_make_one_small_matrix_the_convolution(stride, padding, dilation, transposed, groups):
    axes, random = len(stride), np.random.default_rng(1)
    conv = {1: nn.functional.conv1d, 2: nn.functional.conv2d}[axes]
    up = {1: nn.functional.conv_transpose1d, 2: nn.functional.conv_transpose2d}[axes]
    shape, kernel = (4, 7, 6)[:1 + axes], (4, 4 // groups, 3, 2)[:2 + axes]
    source, weight = random.normal(size=shape), random.normal(size=kernel)
    function = up if transposed else conv
    target = function(torch.from_numpy(source[None]), torch.from_numpy(weight), stride=stride, padding=padding,
                      dilation=dilation, groups=groups).numpy()[0]
    geometry = Convolution("K", shape, target.shape, stride, padding, dilation, groups, transposed)
    np.testing.assert_allclose(convolve.apply(geometry, weight, source.reshape(1, -1))[0], target.ravel(), atol=1e-12)
    found = np.zeros(target.size)
    for piece in patches(geometry, kernel[2:]):
        block = weight[slice(*piece.rows)].reshape(kernel[0] // groups, -1)
        of = np.array(piece.pixels if transposed else piece.windows)
        operand = np.where(of >= 0, source.ravel()[of], 0).reshape(piece.positions, -1)
        if transposed:
            np.add.at(found, np.array(piece.windows)[np.array(piece.windows) >= 0],
                      (operand @ block).ravel()[np.array(piece.windows) >= 0])
        else:
            placed = np.array(piece.placed)
            found += np.where(placed >= 0, (operand @ block.T).ravel()[placed], 0)
    np.testing.assert_allclose(found, target.ravel(), atol=1e-12)


def test_an_index_coupling_costs_its_elements_and_no_weights():
    design = case(Network, "last")[1]
    assert not [b for b in design.blocks if b.name.startswith("hidden")]
    edges, back = 16, design.hardware.depths.index
    assert edges * 2 + 4 * 12 <= len(design.index) <= back  # two ends of every edge, four gathers back to the nodes
    reads = [s for s in design.sweeps if s.gather]
    assert len(reads) == 3 and sum(s.gather_second for s in reads) == 3  # of the edges, two kicks of two gathers each
    assert all(s.opcode == Opcode.UNITS for s in reads)


def test_a_gather_is_an_operand_of_the_pass_that_reads_it():
    design = case(Phases, "last")[1]
    assert [(s.gather, s.gather_second, s.length) for s in design.sweeps if s.gather or s.gather_second] == [
        (False, True, 12), (True, False, 12), (False, True, 12)]  # the edges, the kick at one end, at the other


def test_hardware_without_gathers_has_no_index_memory():
    design = case(Local, "last")[1]
    assert design.hardware.depths.index == 0 and not design.hardware.repeat and design.index == ()


def test_a_kernel_is_stored_once_and_its_gradient_has_its_shape():
    net, design, x, y = case(Waves, "last")
    assert [(b.rows, b.columns) for b in design.blocks if b.name == "hidden"] == [(3, 6)]
    with design.open("int:") as chip:
        assert chip.gradient(x, y)["K"].shape == chip.state_dict()["K"].shape == (3, 2, 3)


@pytest.mark.parametrize("shape", [(14,), (14, 1)])
def test_a_learned_vector_may_be_moved(shape):
    class Moved(Model):
        states = {"q": 14}
        shapes = {"B": (14, INPUTS), "h": shape}

        def energy(self, q, u):
            return 0.6 * (q @ q) + log_cosh(q - 0.5 * self.h.flatten().roll(3)) + q @ (self.B @ u)

    net, design, x, y = case(Moved, "last")
    assert not design.vectors
    with design.open("int:") as chip:
        found, expected = chip.gradient(x, y)["h"], np.asarray(bptt(net, x, y, 0.25, 2, "last")[0]["h"])
        assert found.shape == shape and cosine(found, expected) >= 0.9999


class AllToAll(Model):
    states = {"q": 12}
    shapes = {"B": (12, INPUTS), "K": (12, 12)}

    def energy(self, q, u):
        return -0.05 * (self.K * torch.cos(q[:, None] - q[None, :])).sum() + 0.5 * (q @ q) + q @ (self.B @ u)


class Bilinear(AllToAll):
    def energy(self, q, u):
        c, s = torch.cos(q), torch.sin(q)
        return -0.05 * (c @ self.K @ c + s @ self.K @ s) + 0.5 * (q @ q) + q @ (self.B @ u)


def test_phases_of_all_pairs_are_refused_with_the_bilinear_form():
    advice = ("energy: every unit is coupled to every other one as an edge of its own, at "
              "`test_gather.py:123: def energy(self, q, u):`; write a matrix product, for "
              "phases cos(a - b) = cos a cos b + sin a sin b: torch.cos(q) @ K @ torch.cos(q) + torch.sin(q) @ K @ "
              "torch.sin(q), not 66 pairs of 12 units")
    with pytest.raises(el.CompileError, match=f"^{re.escape(advice)}$"):
        case(AllToAll, "last")
    assert [(b.rows, b.columns) for b in case(Bilinear, "last")[1].blocks if b.name == "hidden"] == [(12, 12)]


def test_units_of_a_large_network_fit_where_a_dense_matrix_would_not():
    class Large(Model):
        states = {"q": (4, 12, 12)}
        shapes = {"K": (4, 4, 3, 3)}

        def energy(self, q, u):
            return 0.6 * (q**2).sum() + log_cosh(nn.functional.conv2d(q[None], self.K, padding=1)) + q.flatten()[:3] @ u

    design = case(Large, "last")[1]
    assert design.hardware.depths.weights <= 1024  # the readout's; a dense matrix has 331776 words
    assert len(design.program) <= 2048
