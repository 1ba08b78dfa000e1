"""Backpropagation through long samples, piece by piece."""

import numpy as np
import pytest
from test_stacked import NETS, data

from echolith.compiler import stacked


@pytest.mark.parametrize("cost_at", ["last", "every", "mean"])
@pytest.mark.parametrize("rows", [1, 4, 5])
def test_pieces_have_the_gradient_of_the_whole(cost_at, rows, monkeypatch):
    x, y = data("every" if cost_at == "mean" else cost_at, samples=3)
    net = NETS["skip"]()
    whole, outputs = stacked.stack_bptt(net, x, y, 0.25, 2, cost_at)
    monkeypatch.setattr(stacked, "_ROWS", rows)
    found, same = stacked.stack_bptt(net, x, y, 0.25, 2, cost_at)
    assert found.keys() == whole.keys() and any(np.any(g) for g in found.values())
    for name, gradient in whole.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(outputs, same)
