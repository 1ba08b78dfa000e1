"""Damped momenta in integers: what an exact return costs in bits, and what is left of the gradient. A minute or two.

    python -m echolith.bench.dissipation

A damped step is ``p *= a^1/2; q += dt p; p *= a^1/2; p -= dt dV/dq``, a = exp(-g dt), in integers of 14 fraction bits,
in each of the ways of bench/damping.py; the echo undoes it. ``kept`` is the bits that it needs for that.

Cosines are those of the contrast with the gradient of ``boundary_reference``, of all parameters of the energy, with
the best of several nudges, which no chip could know. ``wide`` is ``growing`` with as many more fraction bits, in q and
p, as momenta lose; left out where forces would need more than float64 has.
"""

import copy
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from echolith.bench.damping import SCHEMES, Growing, Rounded, real, whole
from echolith.compiler.boundaries import boundary_reference

__all__ = ["contrast", "main", "returned"]

DT, BITS = 0.25, 14
_UNITS, _INPUTS, _OUTPUTS, _SAMPLES, _ROWS = 8, 3, 2, 4, 8
_LONG, _SHORT = 10_000, 256  # steps of the return; of one that is lost, before it leaves the range of floats
_NUDGES = 19  # tried, from 2^-12 to 2^6 times what momenta lose
_FINEST = 40  # fraction bits of which float64 computes forces


class Net(nn.Module):
    """Stiff units, coupled through log-cosh rows; a readout."""

    states, inputs, outputs = {"q": _UNITS}, _INPUTS, _OUTPUTS

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.B, self.C = (nn.Parameter(0.4 * torch.randn(a, b)) for a, b in (
            (_ROWS, _UNITS), (_ROWS, _INPUTS), (_OUTPUTS, _UNITS)))
        self.k = nn.Parameter(torch.rand(_UNITS) + 0.5)

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + torch.log(torch.cosh(self.W @ q + self.B @ u)).sum()

    def cost(self, q, y):
        return 0.5 * ((self.C @ q - y) ** 2).sum()


@dataclass
class Copy:
    """One of the replicas that run side by side: q and p as whole numbers, (samples, units)."""

    net: dict[str, np.ndarray]
    scheme: Rounded
    bits: int
    q: np.ndarray
    p: np.ndarray

    def rows(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """q and tanh(W q + B u) as floats."""
        q = real(self.q, self.bits)
        return q, np.tanh(q @ self.net["W"].T + u @ self.net["B"].T)

    def _force(self, u: np.ndarray, k: int) -> np.ndarray:
        q, t = self.rows(u)
        return whole(DT * (self.net["k"] * q + t @ self.net["W"]), self.bits + self.scheme.kick(k))

    def _move(self, k: int) -> np.ndarray:
        return whole(DT * real(self.p, -self.scheme.drift(k)), 0)

    def step(self, u: np.ndarray, k: int) -> None:
        self.p = self.scheme.before(self.p, k)
        self.q = self.q + self._move(k)
        self.p = self.scheme.after(self.p, k) - self._force(u, k)

    def back(self, u: np.ndarray, k: int, nudge: np.ndarray | None = None) -> None:
        """``nudge``: times dcost/dq, as floats."""
        self.p = self.p + self._force(u, k)
        if nudge is not None:
            self.p = self.p - whole(nudge, self.bits + self.scheme.nudge(k))
        self.p = self.scheme.undo_after(self.p, k)
        self.q = self.q - self._move(k)
        self.p = self.scheme.undo_before(self.p, k)


def _start(scheme: Rounded, bits: int) -> Copy:
    net = {name: p.detach().double().numpy() for name, p in Net().named_parameters()}
    still = np.zeros((_SAMPLES, _UNITS), object)
    return Copy(net, scheme, bits, still, still)


def _data(steps: int, cost_at: str) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    x = draws.integers(0, 17, (_SAMPLES, steps, _INPUTS)) / 16
    return x, draws.normal(size=(_SAMPLES, steps, _OUTPUTS) if cost_at == "every" else (_SAMPLES, _OUTPUTS))


def returned(scheme: Rounded, steps: int, bits: int = BITS) -> tuple[bool, float]:
    """Whether every bit of q and p is back after ``steps`` and as many back, and the bits kept by unit and step."""
    (x, _), run = _data(steps, "last"), _start(scheme, bits)
    for k in range(steps):
        run.step(x[:, k], k)
    kept = scheme.kept(steps)
    for k in reversed(range(steps)):
        run.back(x[:, k], k)
    return not (run.q.any() or run.p.any()), kept / steps


def contrast(scheme: Rounded, steps: int, cost_at: str, nudge: float, bits: int = BITS) -> dict[str, np.ndarray]:
    """The gradient by parameters of the energy, batch mean."""
    (x, y), run = _data(steps, cost_at), _start(scheme, bits)
    for k in range(steps):
        run.step(x[:, k], k)
    found = {name: np.zeros_like(run.net[name]) for name in ("W", "B", "k")}
    for sign in (1, -1):
        one = copy.deepcopy(run)
        for k in reversed(range(steps)):
            q, t = one.rows(x[:, k])
            gain = -DT * sign / (2 * nudge * _SAMPLES) * 2.0 ** (scheme.lost * (k + 1))
            for name, term in (("W", t.T @ q), ("B", t.T @ x[:, k]), ("k", (q**2).sum(0) / 2)):
                found[name] += gain * term
            has = cost_at == "every" or k == steps - 1
            target = y[:, k] if cost_at == "every" else y
            urge = sign * nudge * (q @ one.net["C"].T - target) @ one.net["C"] if has else None
            one.back(x[:, k], k, urge)
    return found


def _cosine(make: type[Rounded], m: int, steps: int, cost_at: str, bits: int = BITS) -> float:
    """The best over nudges."""
    x, y = _data(steps, cost_at)
    rate = make(m).lost * np.log(2) / DT
    wanted = boundary_reference(Net(), x, y, DT, boundary="final", dissipation=rate, cost_at=cost_at)
    b = np.concatenate([wanted[name].ravel() for name in ("W", "B", "k")])
    best = -1.0
    for nudge in 2.0 ** np.linspace(-12, 6 + make(m).lost * steps, _NUDGES):
        found: dict[str, np.ndarray] = {}
        with np.errstate(all="ignore"), suppress(OverflowError):  # large nudges leave the range of floats
            found = contrast(make(m), steps, cost_at, nudge, bits)
        if not found:
            continue
        a = np.concatenate([g.ravel() for g in found.values()])
        if np.isfinite(a).all() and (largest := np.abs(a).max()):
            a = a / largest
            best = max(best, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    return best


def main(factors: tuple[int, ...] = (9, 7, 5, 3), lengths: tuple[int, ...] = (32, 128)) -> None:
    columns = [(steps, cost_at) for steps in lengths for cost_at in ("last", "every")]
    print(f"{'g dt':>7} {'damping':9} {'kept/unit/step':>14} {f'back {_LONG:,}':>12}"
          + "".join(f" {f'{c} {s}':>10}" for s, c in columns))
    for m in (0, *factors):
        rate = Growing(m).lost * np.log(2)
        for name, make in SCHEMES.items() if m else (("none", Rounded),):
            exact, kept = returned(make(m), _SHORT if make is Rounded and m else _LONG)
            _print(rate, name, f"{kept:.4f}", "exact" if exact else "lost",
                   [_cosine(make, m, s, c) for s, c in columns])
        if m:
            wide = [BITS + int(np.ceil(Growing(m).lost * steps)) for steps, _ in columns]
            _print(rate, "wide", "", "", [_cosine(Growing, m, s, c, bits) if bits <= _FINEST else None
                                          for (s, c), bits in zip(columns, wide, strict=True)])


def _print(rate: float, name: str, kept: str, exact: str, cosines: list[float | None]) -> None:
    shown = (f" {'-' if c is None else f'{c:.6f}':>10}" for c in cosines)
    print(f"{rate:7.4f} {name:9} {kept:>14} {exact:>12}" + "".join(shown), flush=True)


if __name__ == "__main__":
    main()
