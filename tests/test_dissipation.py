"""Damped momenta in integers: what returns, what it costs, what is left of the gradient."""

import numpy as np
import pytest

from echolith.bench.damping import SCHEMES, Growing, Rational, Rounded, Shifted
from echolith.bench.dissipation import DT, Net, contrast, main, returned
from echolith.compiler.boundaries import boundary_reference


@pytest.mark.parametrize("scheme", [Rational, Growing, Shifted])
@pytest.mark.parametrize("m", [3, 7])
def test_all_bits_return_and_as_many_are_kept_as_are_lost(scheme, m):
    steps = 400
    exact, kept = returned(scheme(m), steps)
    assert exact
    assert abs(kept - -2 * np.log2(1 - 2.0**-m)) < 4 / steps + 0.1 / m**2 * (scheme is Rational)


def test_rounding_alone_does_not_return():
    assert returned(Rounded(7), 50) == (False, 0.0)
    assert returned(Rounded(0), 50) == (True, 0.0)


def test_a_product_with_a_fraction_by_hand():
    scheme, p = Rational(2), np.array([13, -6], object)
    once = scheme.before(p, 0)  # 13 = 3 * 4 + 1 -> 3 * 3 + 1 mod 3; -6 = -2 * 4 + 2 -> -2 * 3 + 2 mod 3
    assert once.tolist() == [10, -4] and scheme.store.tolist() == [0, 0]
    assert scheme.undo_before(once, 0).tolist() == [13, -6]


def test_a_bit_is_shifted_out_whenever_momenta_have_halved():
    scheme = Shifted(2)  # 0.83 bits a step
    p = np.array([5, -3], object)
    for k, expected in enumerate(([5, -3], [2, -2], [1, -1])):
        p = scheme.before(p, k)
        assert p.tolist() == expected
    assert {k: bits.tolist() for k, bits in scheme.bits.items()} == {1: [1, 1], 2: [0, 0]}
    for k, expected in ((2, [2, -2]), (1, [5, -3])):
        p = scheme.undo_before(p, k)
        assert p.tolist() == expected


@pytest.mark.parametrize("name", SCHEMES)
def test_the_contrast_is_the_gradient_of_the_damped_run(name):
    draws = np.random.default_rng(0)
    x = draws.integers(0, 17, (4, 16, 3)) / 16
    y = draws.normal(size=(4, 16, 2))
    scheme = SCHEMES[name](5)
    found = contrast(scheme, 16, "every", 2.0**-4)
    expected = boundary_reference(Net(), x, y, DT, boundary="final", dissipation=scheme.lost * np.log(2) / DT,
                                  cost_at="every")
    a, b = (np.concatenate([g[n].ravel() for n in ("W", "B", "k")]) for g in (found, expected))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > (0.99 if name == "rational" else 0.9999)


def test_the_table(capsys, monkeypatch):
    monkeypatch.setattr("echolith.bench.dissipation._LONG", 20)
    monkeypatch.setattr("echolith.bench.dissipation._NUDGES", 3)
    main(factors=(3,), lengths=(8,))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["0.0000", "none"], *(["0.2671", name] for name in (*SCHEMES, "wide"))]
    assert all(float(line.split()[-1]) > 0.99 for line in lines[1:] if "rational" not in line)
