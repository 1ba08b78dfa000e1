"""Momenta that decay on the chip: what is left of the gradient, by how much they decay. A minute.

    python -m echolith.bench.dissipation

Cosines of `Session.gradient` to `boundary_reference`, float64 autograd through the damped steps, of all parameters and
the least of one; ``bits`` is what decays of each position and of each momentum, `damping` tells why it is not lost.
"""

import numpy as np
import torch
from torch import nn

import echolith as el
from echolith.compiler.boundaries import boundary_reference
from echolith.compiler.errors import CompileError

__all__ = ["Net", "main", "measured"]

_DT, _SUBSTEPS, _SAMPLES, _LANES = 0.25, 2, 24, 4


class Net(nn.Module):
    """Stiff units, coupled through log-cosh rows; a read-out."""

    states, inputs, outputs = {"q": 8}, 3, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.B, self.C = (nn.Parameter(0.4 * torch.randn(a, b)) for a, b in ((8, 8), (8, 3), (2, 8)))
        self.k = nn.Parameter(torch.rand(8) + 0.5)

    def energy(self, q, u):
        return 0.5 * (self.k * q**2).sum() + torch.log(torch.cosh(self.W @ q + self.B @ u)).sum()

    def cost(self, q, y):
        return 0.5 * ((self.C @ q - y) ** 2).sum()


def measured(decayed: float, rows: int) -> tuple[bool, float, float]:
    """Whether every bit returns, the cosine of all parameters and the least of one; ``decayed``: rate * duration."""
    draws = np.random.default_rng(0)
    x, y = draws.integers(0, 17, (_SAMPLES, rows, 3)) / 16, draws.normal(size=(_SAMPLES, 2)) / 4 + 1
    rate = decayed / (_DT * (rows * _SUBSTEPS - 1))
    design = el.compile(Net(), dynamics=el.Leapfrog(_DT, _SUBSTEPS), rule=el.LagrangianEcho(dissipation=rate),
                        calibrate=(x, y), lanes=_LANES)
    wanted = boundary_reference(Net(), x, y, _DT, _SUBSTEPS, boundary="final", dissipation=rate)
    with design.open("int:") as chip:
        exact, found = chip.echo(x).exact, chip.gradient(x, y)
    each = [_cosine(found[name].ravel(), g.ravel()) for name, g in wanted.items()]
    return exact, _cosine(*(np.concatenate([g[n].ravel() for n in wanted]) for g in (found, wanted))), min(each)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def main(amounts: tuple[float, ...] = (0, 1, 2, 4, 6, 7), lengths: tuple[int, ...] = (8, 32, 128)) -> None:
    print(f"{'rate * duration':>15} {'bits':>5}"
          + "".join(f" {f'{n * _SUBSTEPS} steps (least)':>26} {'back':>6}" for n in lengths))
    for amount in amounts:
        line = f"{amount:15g} {amount / 2 / np.log(2):5.1f}"
        for rows in lengths:
            try:
                exact, whole, least = measured(amount, rows)
            except CompileError:
                line += f" {'refused':>26} {'':>6}"
                continue
            line += f" {f'{whole:.6f} ({least:.6f})':>26} {'exact' if exact else 'LOST':>6}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
