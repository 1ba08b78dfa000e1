"""The small network that the benches learn: every unit of the chip has something to do, and sizes are not round."""

import numpy as np

from echolith.compiler.design import Design

__all__ = ["design", "samples"]

UNITS, ROWS, INPUTS, OUTPUTS, STEPS = 5, 7, 2, 3, 3


def samples(count: int, cost_at: str = "last", seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """X (count, steps, inputs) and Y (count, outputs), or (count, steps, outputs), of zeros and ones."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1, 1, (count, STEPS, INPUTS)).round(3)
    shape = (count, STEPS, OUTPUTS) if cost_at == "every" else (count, OUTPUTS)
    return x, (generator.uniform(-1, 1, shape) > 0).astype(float)


def design(*, cost_at: str = "last", lanes: int = 3, board: str = "ulx3s-85f") -> Design:
    """A stiffness per unit, one shared by all, log-cosh of coupling and drive, and logistic outputs."""
    import torch  # here, so that the benches themselves do not need it
    from torch import nn

    from echolith.compiler.build import compile
    from echolith.compiler.dynamics import Leapfrog
    from echolith.compiler.learning import HamiltonianEcho

    class Small(nn.Module):
        inputs, outputs = INPUTS, OUTPUTS

        def __init__(self):
            super().__init__()
            self.states = {"q": UNITS}
            self.W, self.B = nn.Linear(UNITS, ROWS, bias=False), nn.Linear(INPUTS, ROWS)
            self.C = nn.Linear(UNITS, OUTPUTS)
            self.k, self.stiff = nn.Parameter(torch.linspace(0.5, 1.5, UNITS)), nn.Parameter(torch.tensor(0.25))

        def energy(self, q, u):
            return (0.5 * self.k * q**2 + self.stiff * q**2).sum() + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()

        def cost(self, q, y):
            return nn.functional.binary_cross_entropy_with_logits(self.C(q), y, reduction="sum")

        def predict(self, q):
            return self.C(q)

    torch.manual_seed(0)
    return compile(Small().double(), dynamics=Leapfrog(dt=0.25, substeps=2), rule=HamiltonianEcho(cost_at=cost_at),
                   calibrate=samples(16, cost_at, seed=0), lanes=lanes, board=board)
