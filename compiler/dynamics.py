"""How states move and how parameters learn: what the user chooses besides the energy."""

import math
from dataclasses import dataclass

from echolith.compiler.errors import CompileError

__all__ = ["HamiltonianEcho", "Leapfrog"]


@dataclass(frozen=True)
class Leapfrog:
    """Staggered leapfrog of H = |p|^2 / 2 + V(q, u): per substep ``q += dt * p; p -= dt * dV/dq(q, u)``.

    Parameters
    ----------
    dt : float
        Length of a substep; any positive number. Powers of two cost no multiplier.
    substeps : int
        Substeps per input row.
    """

    dt: float
    substeps: int = 1

    def __post_init__(self) -> None:
        if not (isinstance(self.dt, (int, float)) and math.isfinite(self.dt) and self.dt > 0):
            raise CompileError(f"dt must be a positive number, not {self.dt!r}")
        if not (isinstance(self.substeps, int) and self.substeps >= 1):
            raise CompileError(f"substeps must be a whole number, at least 1, not {self.substeps!r}")


@dataclass(frozen=True)
class HamiltonianEcho:
    """Recurrent Hamiltonian echo learning: nudged echoes +- of the forward run, back to the start.

    Parameters
    ----------
    cost_at : str
        ``"last"``: cost(q, y) at the last substep's position; ``"every"``: the sum of the costs at the last substep
        of every input row; ``"mean"``: their mean over the rows.
    """

    cost_at: str = "last"

    def __post_init__(self) -> None:
        if self.cost_at not in ("last", "every", "mean"):
            raise CompileError(f'cost_at must be "last", "every" or "mean", not {self.cost_at!r}')
