"""Lagrangian echo and equilibrium propagation: gradients as contrasts of two trajectories with the same conditions.

float64 references for every boundary condition. ``"final"`` is the Hamiltonian echo; the others are not lowered to the
chip, see docs/rules/lagrangian.md.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from echolith.compiler.dynamics import Leapfrog
from echolith.compiler.errors import CompileError
from echolith.compiler.motion import Motion, Path, Values, motion
from echolith.compiler.orbits import CONDITIONS, ends, jacobian, orbit
from echolith.compiler.plain import plain, shaped
from echolith.compiler.scalars import real
from echolith.compiler.stack import Stack
from echolith.compiler.trace import float64

__all__ = ["BOUNDARIES", "boundary_gradient", "boundary_reference"]

BOUNDARIES = ("initial", *CONDITIONS, "final")


def boundary_gradient(
    model: torch.nn.Module, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int = 1, *, boundary: str,
    dissipation: float = 0.0, cost_at: str = "last", nudge: float = 1e-4, residual: bool = False,
) -> dict[str, np.ndarray]:
    """The gradient of the batch mean of the cost from trajectories nudged by +nudge and -nudge, in float64.

    Of the model it takes dV/dq, dT/dp, dcost/dq and the derivatives by parameters at single states, and never
    differentiates through time. Conditions at both ends also take second derivatives, in Newton's method.

    Parameters
    ----------
    X, Y, cost_at
        As of :func:`echolith.compiler.reference.bptt`.
    boundary
        What a nudge leaves as it is. ``"initial"``: q = p = 0 at the start. ``"both"``: q = 0 at both ends.
        ``"periodic"``: the end is the start. ``"final"``: the end of the run from q = p = 0 that has no nudge.
    dissipation
        Rate, per unit of time, at which momenta decay; with ``"final"`` alone.
    residual
        With ``"initial"``, adds the term of the end, which needs the derivatives of the last state by every parameter.

    Raises
    ------
    CompileError
        An argument is not as described, or no trajectory meets the conditions.
    """
    given = _given(model, X, Y, dt, substeps, boundary, dissipation, cost_at)
    if (size := real(nudge)) is None or not size > 0:
        raise CompileError(f"nudge must be a positive number, not {nudge!r}")
    if residual and boundary != "initial":
        raise CompileError(f'residual is 0 but for boundary="initial"; leave it out, not with {boundary!r}')
    with float64(), torch.enable_grad():
        up, down = _nudged(given, boundary, size)
        batch = len(given.rest[0])
        found = [given.learn(given.action(path, s), batch) for path, s in ((up, size), (down, -size))]
        gradient = {name: (found[0][name] - found[1][name]) / (2 * size) for name in given.learned}
        if not residual:
            return gradient
        end = _residual(given, (up.q[-1] - down.q[-1]) / (2 * size), (up.p[-1] - down.p[-1]) / (2 * size))
    return {name: gradient[name] + end[name] for name in gradient}


def _nudged(given: Motion, boundary: str, nudge: float) -> tuple[Path, Path]:
    """The trajectories of +nudge and of -nudge."""
    given = _fixed(given)
    if boundary in CONDITIONS:
        free = orbit(given, boundary)
        return orbit(given, boundary, nudge, free), orbit(given, boundary, -nudge, free)
    if boundary == "initial":
        return given.run(*given.rest, nudge), given.run(*given.rest, -nudge)
    free = given.run(*given.rest)
    q, p = free.q[-1], free.p[-1]
    return given.retrace(q, p, nudge), given.retrace(q, p, -nudge)


def _fixed(given: Motion) -> Motion:
    """With parameters that nothing is differentiated by."""
    return replace(given, values={name: value.detach() for name, value in given.values.items()})


def _residual(given: Motion, q: torch.Tensor, p: torch.Tensor) -> dict[str, np.ndarray]:
    """The symplectic form of the last state's derivatives by the nudge, ``q`` and ``p``, and by the parameters."""
    def last(learned: Values) -> tuple[torch.Tensor, torch.Tensor]:
        path = replace(given, values=given.values | learned).run(*given.rest)
        return path.q[-1], path.p[-1]

    by_q, by_p = torch.func.jacfwd(last)({name: given.values[name].detach() for name in given.learned})
    return {name: (torch.einsum("bn,bn...->...", p, by_q[name]) - torch.einsum("bn,bn...->...", q, by_p[name]))
            .detach().numpy() / len(q) for name in given.learned}


def boundary_reference(
    model: torch.nn.Module, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int = 1, *, boundary: str,
    dissipation: float = 0.0, cost_at: str = "last",
) -> dict[str, np.ndarray]:
    """What :func:`boundary_gradient` must find: autograd through the steps of the trajectory without nudge.

    Where conditions hold at both ends, the start follows the parameters by the implicit function theorem.
    """
    given = _given(model, X, Y, dt, substeps, boundary, dissipation, cost_at)
    with float64(), torch.enable_grad():
        start = _start(given, boundary) if boundary in CONDITIONS else given.rest
        return given.learn(given.cost(given.run(*start)), len(start[0]))


def _start(given: Motion, boundary: str) -> tuple[torch.Tensor, torch.Tensor]:
    """q, p, of which the derivatives by the parameters are those that keep the conditions at the end."""
    fixed = _fixed(given)
    found = orbit(fixed, boundary)
    start = torch.stack([found.q[0], found.p[0]])  # (2, batch, units)

    def missed(given: Motion, start: torch.Tensor) -> torch.Tensor:
        path = given.run(start[0], start[1])
        return ends(boundary, (path.q[0], path.p[0]), (path.q[-1], path.p[-1]))

    gap = missed(given, start).transpose(0, 1).flatten(1)
    step = torch.linalg.solve(jacobian(partial(missed, fixed), start), gap)
    q, p = start - step.reshape(-1, 2, given.units).transpose(0, 1)
    return q, p


def _given(model: torch.nn.Module, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int, boundary: str,
           dissipation: float, cost_at: str) -> Motion:
    """The arguments, checked."""
    leapfrog = Leapfrog(dt, substeps)
    if boundary not in BOUNDARIES:
        raise CompileError(f'boundary must be {", ".join(map(_quoted, BOUNDARIES[:-1]))} or "final", not {boundary!r}')
    if (rate := real(dissipation)) is None or rate < 0:
        raise CompileError(f"dissipation must be a number from 0 on, not {dissipation!r}")
    if rate and boundary != "final":
        raise CompileError(f'dissipation needs boundary="final", the only one that undoes it, not {boundary!r}')
    if cost_at not in ("last", "every", "mean"):
        raise CompileError(f'cost_at must be "last", "every" or "mean", not {cost_at!r}')
    if isinstance(model, Stack):
        raise CompileError("boundary conditions are built for a model with one energy(self, q, u); take one layer, not "
                           f"the stack {type(model).__name__}")
    if not callable(getattr(model, "cost", None)):
        name = type(model).__name__
        raise CompileError(f"{name} must define cost(self, q, y) to have a gradient, not {name} without it")
    x = shaped("X", X, (None, None, int(getattr(model, "inputs"))), "(batch, steps, inputs)", CompileError)  # noqa: B009
    if boundary == "both" and (cost_at == "last" or x.shape[1] == 1):
        raise CompileError('boundary="both" fixes the last position, where the only cost would be; take '
                           f'cost_at="every" or "mean" over several rows, not cost_at={_quoted(cost_at)} over '
                           f"{x.shape[1]} of them")
    return motion(model, x, _targets(model, Y, cost_at), leapfrog.dt, leapfrog.substeps, cost_at, rate)


def _targets(model: torch.nn.Module, Y: np.ndarray, cost_at: str) -> np.ndarray:
    """Class numbers, whole numbers without the axis of the outputs, stay whole."""
    y, axes = plain("Y", Y, CompileError), 2 if cost_at == "last" else 3
    vectors = y.ndim == axes and y.shape[-1] == getattr(model, "outputs", y.shape[-1])
    return y.astype(np.int64 if np.asarray(Y).dtype.kind in "iu" and not vectors else np.float64)


def _quoted(text: str) -> str:
    return f'"{text}"'
