"""scikit-learn's 1,797 handwritten digits as sequences: a network of oscillators sees one row of pixels at a time.

Both networks below learn the same task from the same split; they differ in size only.

    echolith fit examples/digits.py:large --substeps 2 --epochs 2
"""

import numpy as np
import torch
from torch import nn

from echolith.host.rates import shuffled

__all__ = [
    "BATCH", "DT", "EPOCHS", "LEARNING_RATE", "MOMENTUM", "SUBSTEPS", "Digits", "data", "large", "small", "split",
]

DT, SUBSTEPS = 0.25, 2
EPOCHS, BATCH, LEARNING_RATE, MOMENTUM = 30, 32, 0.1, 0.9
_TRAIN = 1437  # four fifths
_STRENGTH = 3.0  # of the couplings, over PyTorch's initial weights


class Digits(nn.Module):
    """V = |q|^2 / 2 + sum log cosh(W q + B u + b), read out by ten logits C q + d.

    Parameters
    ----------
    units, rows : int
        Oscillators, and rows of the coupling W.
    """

    inputs, outputs = 8, 10

    def __init__(self, units: int, rows: int):
        super().__init__()
        self.states = {"q": units}
        self.W = nn.Linear(units, rows, bias=False)
        self.B = nn.Linear(self.inputs, rows)
        self.C = nn.Linear(units, self.outputs)
        with torch.no_grad():  # so that untrained states already fill half the range that trained ones need
            self.W.weight *= _STRENGTH
            self.B.weight *= _STRENGTH

    def energy(self, q, u):
        z = self.W(q) + self.B(u)
        return 0.5 * (q**2).sum() + torch.log(torch.cosh(z)).sum()

    def cost(self, q, y):
        return nn.functional.binary_cross_entropy_with_logits(self.C(q), y, reduction="sum")

    def predict(self, q):
        return self.C(q)


def large(seed: int = 0) -> Digits:
    """The ULX3S-85F's network, untrained."""
    torch.manual_seed(seed)
    return Digits(64, 64)


def small(seed: int = 0) -> Digits:
    """The largest network of this kind whose complete learning core fits the iCEBreaker, untrained."""
    torch.manual_seed(seed)
    return Digits(20, 20)


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training rows of pixels (1437, 8, 8) in [0, 1] and labels, then the 360 for the test; always the same ones."""
    from sklearn.datasets import load_digits

    x, labels = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 8, 8)
    order = shuffled(len(x), 0, 0)
    train, test = order[:_TRAIN], order[_TRAIN:]
    return x[train], labels[train], x[test], labels[test]


def data(cost_at: str = "last") -> tuple[np.ndarray, np.ndarray]:
    """Training samples (1437, 8, 8) and one-hot targets (1437, 10), or the same one at all 8 rows."""
    x, labels, _, _ = split()
    y = np.eye(10)[labels]
    return x, y if cost_at == "last" else np.repeat(y[:, None], x.shape[1], axis=1)
