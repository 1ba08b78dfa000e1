"""Which boundary conditions make the local contrast of two trajectories a gradient: cosines with autograd.

    python -m echolith.examples.boundaries
"""

import numpy as np
import torch
from torch import nn

import echolith as el

__all__ = ["CASES", "Oscillators", "cosine", "data", "gradients", "main"]

_DT, _SUBSTEPS, _SAMPLES, _ROWS = 0.2, 2, 3, 5
CASES = {  # what is printed: boundary, dissipation, with the residual
    "initial": ("initial", 0.0, False),
    "initial, with the residual": ("initial", 0.0, True),
    "both": ("both", 0.0, False),
    "periodic": ("periodic", 0.0, False),
    "final": ("final", 0.0, False),
    "final, dissipation 0.5": ("final", 0.5, False),
}


class Oscillators(nn.Module):
    """Two groups of oscillators in one coupling, one of them with masses that learn."""

    states, inputs, outputs = {"q": 5, "r": 3}, 3, 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W, self.V, self.B = nn.Linear(5, 6), nn.Linear(3, 6, bias=False), nn.Linear(3, 6, bias=False)
        self.C = nn.Linear(5, 2)
        self.m = nn.Parameter(torch.rand(3) + 0.5)

    def energy(self, q, r, u):
        return 0.5 * (q @ q) + 0.3 * (r @ r) + torch.log(torch.cosh(self.W(q) + self.V(r) + self.B(u))).sum()

    def kinetic(self, p, o):
        return (p**2).sum() / 2 + (o**2 / (2 * self.m)).sum()

    def cost(self, q, r, y):
        return ((self.C(q) - y) ** 2).sum()


def data() -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets at every row."""
    draws = np.random.default_rng(0)
    return draws.normal(size=(_SAMPLES, _ROWS, 3)), draws.normal(size=(_SAMPLES, _ROWS, 2))


def gradients(boundary: str, dissipation: float, residual: bool) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The local contrast, and autograd through the same trajectory."""
    case = Oscillators(), *data(), _DT, _SUBSTEPS
    found = el.boundary_gradient(*case, boundary=boundary, dissipation=dissipation, cost_at="mean", residual=residual)
    return found, el.boundary_reference(*case, boundary=boundary, dissipation=dissipation, cost_at="mean")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))


def main() -> None:
    names = [name for name, _ in Oscillators().named_parameters()]
    print(f"{'boundary':28}" + "".join(f"{name:>11}" for name in names) + f"{'1 - all':>11}")
    for boundary, case in CASES.items():
        found, expected = gradients(*case)
        a, b = (np.concatenate([g.ravel() for g in gradient.values()]) for gradient in (found, expected))
        each = "".join(f"{cosine(found[name], expected[name]):11.7f}" for name in names)
        print(f"{boundary:28}{each}{max(1 - cosine(a, b), 0.0):11.1e}", flush=True)


if __name__ == "__main__":
    main()
