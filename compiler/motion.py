"""The float64 leapfrog of a model over one batch, with all its states side by side in one vector.

With a = exp(-dissipation * dt), step k is ``p *= a^1/2; q += dt dT/dp(p); p *= a^1/2; p -= dt dV/dq(q, u_k)``, which
is the chip's where nothing dissipates. A nudge then adds ``nudge * a^(k+1) * dcost/dq(q, y)`` to p where a cost is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
import torch

from echolith.compiler.trace import call, double, parameters, shapes

__all__ = ["Motion", "Path", "Values", "motion"]

Values = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Path:
    """Positions and momenta before the first step and after every step, each (steps + 1, batch, units)."""

    q: torch.Tensor
    p: torch.Tensor


@dataclass(frozen=True)
class Motion:
    """Positions and momenta of one moment are (batch, units), of several (moments, batch, units)."""

    model: torch.nn.Module
    values: Values  # parameters and buffers
    learned: tuple[str, ...]
    u: torch.Tensor  # (steps, batch, inputs)
    y: torch.Tensor  # (costs, batch) or (costs, batch, outputs)
    at: tuple[int, ...]  # the steps that have a cost
    weight: float  # of each of them
    dt: float
    decay: float  # a

    @property
    def steps(self) -> int:
        return len(self.u)

    @property
    def units(self) -> int:
        return sum(map(prod, shapes(self.model).values()))

    @property
    def rest(self) -> tuple[torch.Tensor, torch.Tensor]:
        """q = p = 0."""
        still = torch.zeros(self.u.shape[1], self.units, dtype=torch.float64)
        return still, still

    def _method(self, name: str, flat: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """A method of the model at one sample's states or momenta, (units,)."""
        sizes = list(shapes(self.model).values())
        states = (x.reshape(size) for x, size in zip(flat.split(list(map(prod, sizes))), sizes, strict=True))
        return call(self.model, name, self.values, *states, *others)

    def _kinetic(self, p: torch.Tensor) -> torch.Tensor:
        return self._method("kinetic", p) if callable(getattr(self.model, "kinetic", None)) else 0.5 * (p @ p)

    def velocity(self, p: torch.Tensor) -> torch.Tensor:
        return _over(p, torch.func.grad(self._kinetic))(p)

    def slope(self, q: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """dV/dq."""
        return _over(q, torch.func.grad(partial(self._method, "energy")))(q, u)

    def urge(self, q: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The weight of a cost times its derivative, dcost/dq."""
        return self.weight * _over(q, torch.func.grad(partial(self._method, "cost")))(q, y)

    def _nudge(self, q: torch.Tensor, k: int, nudge: float) -> torch.Tensor:
        """What a nudge adds to the momentum of step k."""
        if not nudge or k not in self.at:
            return torch.zeros_like(q)
        return nudge * self.decay ** (k + 1) * self.urge(q, self.y[self.at.index(k)])

    def run(self, q: torch.Tensor, p: torch.Tensor, nudge: float = 0.0) -> Path:
        """Forwards from q, p."""
        positions, momenta, root = [q], [p], self.decay**0.5
        for k in range(self.steps):
            q = q + self.dt * self.velocity(root * p)
            p = self.decay * p - self.dt * self.slope(q, self.u[k]) + self._nudge(q, k, nudge)
            positions.append(q)
            momenta.append(p)
        return Path(torch.stack(positions), torch.stack(momenta))

    def retrace(self, q: torch.Tensor, p: torch.Tensor, nudge: float) -> Path:
        """Backwards from q, p, which the last step has left: the echo, in which the momentum gains what it lost."""
        positions, momenta, root = [q], [p], self.decay**0.5
        for k in reversed(range(self.steps)):
            p = (p + self.dt * self.slope(q, self.u[k]) - self._nudge(q, k, nudge)) / self.decay
            q = q - self.dt * self.velocity(root * p)
            positions.append(q)
            momenta.append(p)
        return Path(torch.stack(positions[::-1]), torch.stack(momenta[::-1]))

    def cost(self, path: Path) -> torch.Tensor:
        """Summed over the batch."""
        q = path.q[1:][list(self.at)]
        return self.weight * _over(q, partial(self._method, "cost"))(q, self.y).sum()

    def action(self, path: Path, nudge: float) -> torch.Tensor:
        """The terms of the nudged action that have parameters, ``-dt (T + V) + nudge * cost``, summed over the batch;
        T and V weigh exp(dissipation * t)."""
        gain = self.decay ** -torch.arange(1, self.steps + 1, dtype=torch.float64)
        q, p = path.q[1:], self.decay**0.5 * path.p[:-1]
        potential = _over(q, partial(self._method, "energy"))(q, self.u).sum(1) @ gain
        kinetic = _over(p, self._kinetic)(p).sum(1) @ (gain * self.decay**0.5)
        return nudge * self.cost(path) - self.dt * (potential + kinetic)

    def learn(self, total: torch.Tensor, batch: int) -> dict[str, np.ndarray]:
        """d total / d parameter over ``batch``, by name of the parameters that learn."""
        leaves = [self.values[name] for name in self.learned]
        found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        return {name: g.numpy() / batch for name, g in zip(self.learned, found, strict=True)}


def _over(moments: torch.Tensor, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A function of one sample over all axes of ``moments`` but the last."""
    for _ in range(moments.ndim - 1):
        function = torch.func.vmap(function)
    return function


def motion(model: torch.nn.Module, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int, cost_at: str,
           dissipation: float) -> Motion:
    """Inputs and targets as :func:`echolith.compiler.reference.bptt` takes them."""
    copied = double(model)
    learned = tuple(name for name, p in copied.named_parameters() if p.requires_grad)
    values = {name: v.detach().clone().requires_grad_(name in learned) for name, v in parameters(copied).items()}
    u = torch.as_tensor(X).repeat_interleave(substeps, 1).transpose(0, 1)
    y, ends = torch.as_tensor(Y), range(substeps - 1, len(u), substeps)
    y, at = (y[None], (len(u) - 1,)) if cost_at == "last" else (y.transpose(0, 1), tuple(ends))
    return Motion(copied, values, learned, u, y, at, 1 / len(at) if cost_at == "mean" else 1.0, dt,
                  float(np.exp(-dissipation * dt)))
