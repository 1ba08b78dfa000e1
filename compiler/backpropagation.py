"""Hamiltonian echo backpropagation in float64: parameters are positions of heavy particles, with momenta of their own.

H = |p|^2 / 2 + |pi|^2 / (2 M) + V(q, theta, u), stepped as `reference.bptt` does: q += dt p, theta += dt pi / M, then
p -= dt dV/dq, pi -= dt dV/dtheta. After the last step the cost C(q, theta) kicks: p -= eta dC/dq, pi -= eta dC/dtheta.
The same steps back leave pi = -eta dC/dtheta + O(eta^2), of the cost as a function of the parameters at the start, and
pi = 0 without the kick. Lopez-Pastor and Marquardt, PRX 13, 031020 (2023).

Nothing here differentiates through time.
"""

import math

import numpy as np
import torch

from echolith.compiler.errors import CompileError
from echolith.compiler.trace import call, double, float64, parameters, shapes

__all__ = ["echo_backpropagation"]

Values = dict[str, torch.Tensor]


def echo_backpropagation(model: torch.nn.Module, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int = 1, *,
                         eta: float = 1e-4, mass: float = math.inf, averaged: bool = True) -> dict[str, np.ndarray]:
    """Momenta that echoes leave, over -eta: the gradient of the batch mean of the cost at the last step.

    Parameters
    ----------
    model : torch.nn.Module
        As `compile` takes it; energy, cost and, if any, kinetic energy.
    X, Y : array-like
        (batch, time, inputs) and targets of the last step, (batch, outputs) or class numbers.
    eta : float
        Strength of the kick; 0 is allowed: then momenta are returned as they are.
    mass : float
        M of every parameter; infinite ones stay where they are while a sample runs, as on a chip.
    averaged : bool
        The mean of +eta and -eta, which cancels even orders of eta.
    """
    if not mass > 0:
        raise CompileError(f"mass must be positive, not {mass!r}")
    copied = double(model)
    learned = [name for name, p in copied.named_parameters() if p.requires_grad]
    values = {name: v.detach() for name, v in parameters(copied).items()}
    x, y = torch.as_tensor(np.asarray(X, np.float64)), torch.as_tensor(_targets(Y))
    run = torch.func.vmap(lambda row, goal, sign: _Run(copied, values, learned, dt, substeps, mass).echo(
        row, goal, sign * eta))
    with float64(), torch.no_grad():
        signs = (1.0, -1.0) if averaged else (1.0,)
        found = [run(x, y, torch.full((len(x),), sign)) for sign in signs]
    scale = [-1 / (sign * eta) if eta else 1.0 for sign in signs]
    return {name: np.mean([f * pi[name].mean(0).numpy() for f, pi in zip(scale, found, strict=True)], axis=0)
            for name in learned}


def _targets(Y: np.ndarray) -> np.ndarray:
    y = np.asarray(Y)
    return y if y.dtype.kind in "iu" else y.astype(np.float64)


class _Run:
    """One sample there and back."""

    def __init__(self, model: torch.nn.Module, values: Values, learned: list[str], dt: float, substeps: int,
                 mass: float):
        self.model, self.dt, self.substeps, self.mass = model, dt, substeps, mass
        self.fixed = {name: v for name, v in values.items() if name not in learned}
        self.theta = {name: values[name] for name in learned}
        self.pi = {name: torch.zeros_like(values[name]) for name in learned}
        self.q = tuple(torch.zeros(*size) for size in shapes(model).values())
        self.p = self.q

    def echo(self, rows: torch.Tensor, goal: torch.Tensor, eta: torch.Tensor) -> Values:
        """Momenta of the parameters at the end. The kick after the last step would be undone first."""
        steps = [row for row in rows for _ in range(self.substeps)]
        self._drift(1)
        for row in steps[:-1]:
            self._kick("energy", 1, self.dt, row)
            self._drift(1)
        self._kick("cost", 1, eta, goal)
        self._drift(-1)
        for row in reversed(steps[:-1]):
            self._kick("energy", -1, self.dt, row)
            self._drift(-1)
        return self.pi

    def _kick(self, method: str, sign: int, strength, argument: torch.Tensor) -> None:
        def energy(q, theta):
            return call(self.model, method, self.fixed | theta, *q, argument)

        force, slope = torch.func.grad(energy, (0, 1))(self.q, self.theta)
        self.p = tuple(p - sign * strength * f for p, f in zip(self.p, force, strict=True))
        self.pi = {name: pi - sign * strength * slope[name] for name, pi in self.pi.items()}

    def _drift(self, sign: int) -> None:
        """Positions by momenta; those of the parameters last, or first on the way back. A kinetic energy's own
        parameters get their share, at the same momenta."""
        if sign < 0:
            self._move(sign)
        velocity = self.p
        if callable(getattr(self.model, "kinetic", None)):
            def kinetic(p, theta):
                return call(self.model, "kinetic", self.fixed | theta, *p)

            velocity, slope = torch.func.grad(kinetic, (0, 1))(self.p, self.theta)
            self.pi = {name: pi - sign * self.dt * slope[name] for name, pi in self.pi.items()}
        self.q = tuple(q + sign * self.dt * v for q, v in zip(self.q, velocity, strict=True))
        if sign > 0:
            self._move(sign)

    def _move(self, sign: int) -> None:
        self.theta = {name: t + sign * self.dt / self.mass * self.pi[name] for name, t in self.theta.items()}
