"""Trajectories with conditions at both ends, by Newton's method on all their positions and momenta at once.

They are stationary points of the action ``sum p_k (q_{k+1} - q_k) - dt T(p_k) - dt V(q_{k+1}) + nudge * cost``, not its
minima: relaxation does not find them. Jacobians are dense, of 2 (steps + 1) units columns: for small networks.
"""

from collections.abc import Callable

import torch

from echolith.compiler.errors import CompileError
from echolith.compiler.motion import Motion, Path

__all__ = ["CONDITIONS", "ends", "jacobian", "orbit"]

CONDITIONS = ("both", "periodic")
_STEPS, _HALVINGS, _TOLERANCE = 100, 8, 1e-11  # Newton's steps, of one step, largest residual
_PROGRESS = 1e-3  # a step that takes off less of the residual is stuck


def ends(boundary: str, first: tuple[torch.Tensor, torch.Tensor], last: tuple[torch.Tensor, torch.Tensor]
         ) -> torch.Tensor:
    """What is zero at q, p of both ends, (2, batch, units)."""
    if boundary == "both":
        return torch.stack([first[0], last[0]])
    return torch.stack([last[0] - first[0], last[1] - first[1]])


def orbit(motion: Motion, boundary: str, nudge: float = 0.0, start: Path | None = None) -> Path:
    """The trajectory of every sample nearest to ``start``, or one of them from rest or from random states.

    Raises CompileError if none is found.
    """
    still = torch.zeros(motion.steps + 1, *motion.rest[0].shape, dtype=torch.float64)
    z = torch.stack([still, still] if start is None else [start.q, start.p])
    draws = torch.Generator().manual_seed(0)
    residual = _residual(motion, boundary, nudge, z)
    for _ in range(_STEPS):
        open_ = residual.abs().amax((0, 2)) > _TOLERANCE  # by sample
        if not open_.any():
            return Path(z[0], z[1])
        before, z = residual, _moved(motion, boundary, nudge, z, residual)
        residual = _residual(motion, boundary, nudge, z)
        stuck = open_ & (_size(residual) > (1 - _PROGRESS) * _size(before))
        if stuck.any() and start is not None:
            break
        if stuck.any():
            z = torch.where(stuck[:, None], torch.randn(z.shape, generator=draws, dtype=torch.float64), z)
            residual = _residual(motion, boundary, nudge, z)
    raise CompileError(
        f'no trajectory found for boundary="{boundary}": Newton\'s method did not converge; change dt or the number of '
        f"steps, which may be in resonance, or take smaller inputs or weights, not a residual of {residual.norm():.3g}"
    )


def _size(residual: torch.Tensor) -> torch.Tensor:
    """Of every sample's."""
    return residual.norm(dim=(0, 2))


def jacobian(function: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    """(batch, results, arguments) of a function from (..., batch, units) to (results / units, batch, units)."""
    batch, units = z.shape[-2:]
    basis = torch.eye(z[..., 0, :].numel(), dtype=torch.float64).reshape(-1, *z.shape[:-2], 1, units)
    columns = torch.func.vmap(lambda e: torch.func.jvp(function, (z,), (e.expand_as(z),))[1])(basis)
    return columns.permute(2, 1, 3, 0).reshape(batch, -1, len(basis))


def _residual(motion: Motion, boundary: str, nudge: float, z: torch.Tensor) -> torch.Tensor:
    """Drifts, kicks and conditions that are not met by ``z``, (2, steps + 1, batch, units), one after the other."""
    q, p = z
    drifts = q[1:] - q[:-1] - motion.dt * motion.velocity(p[:-1])
    kicks = p[1:] - p[:-1] + motion.dt * motion.slope(q[1:], motion.u)
    if nudge:
        at = torch.nn.functional.one_hot(torch.tensor(motion.at), motion.steps).double()
        urge = motion.urge(q[1:][list(motion.at)], motion.y)
        kicks = kicks - nudge * torch.einsum("rk,rbn->kbn", at, urge)
    return torch.cat([drifts, kicks, ends(boundary, (q[0], p[0]), (q[-1], p[-1]))])


def _moved(motion: Motion, boundary: str, nudge: float, z: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """``z`` after one step of Newton's, halved per sample until its residual falls; where it never does, ``z``."""
    def left(z: torch.Tensor) -> torch.Tensor:
        return _residual(motion, boundary, nudge, z)

    wanted = residual.transpose(0, 1).flatten(1)
    step = torch.linalg.solve_ex(jacobian(left, z), wanted)[0].reshape(-1, *z[:, :, 0].shape).permute(1, 2, 0, 3)
    length, found = torch.ones(len(wanted), dtype=torch.float64), z
    for _ in range(_HALVINGS):
        tried = z - length[:, None] * step
        better = (length > 0) & (_size(left(tried)) < _size(residual))
        found = torch.where(better[:, None], tried, found)
        length = torch.where(better, 0.0, length / 2)
    return found
