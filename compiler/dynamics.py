"""How states move and how parameters learn: what the user chooses besides the energy."""

from dataclasses import dataclass

from echolith.compiler.errors import CompileError
from echolith.compiler.isa import LOOP_BITS
from echolith.compiler.scalars import real, whole

__all__ = ["ROWS", "HamiltonianEcho", "Leapfrog"]

ROWS = (1 << LOOP_BITS) - 1  # most repetitions of a loop of the program
_SHORTEST = 1e-6


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
        if (dt := real(self.dt)) is None or not 0 < dt:
            raise CompileError(f"dt must be a positive number, not {self.dt!r}")
        if not _SHORTEST <= dt <= 1 / _SHORTEST:
            raise CompileError(f"dt must be from {_SHORTEST:g} to {1 / _SHORTEST:g}; choose it about the time in which "
                               f"the states change, not {dt:g}")
        if (substeps := whole(self.substeps, 1, ROWS)) is None:
            raise CompileError(f"substeps must be a whole number from 1 to {ROWS}, not {self.substeps!r}")
        object.__setattr__(self, "dt", dt)
        object.__setattr__(self, "substeps", substeps)


@dataclass(frozen=True)
class HamiltonianEcho:
    """Recurrent Hamiltonian echo learning: nudged echoes +- of the forward run, back to the start.

    Parameters
    ----------
    cost_at : str
        ``"last"``: cost(q, y) at the last substep's position; ``"every"``: the sum of the costs at the last substep
        of every input row; ``"mean"``: their mean over the rows.
    check : int
        The exact return of an un-nudged copy is checked in the first of so many batches; 1: in every one. Where cost
        derivatives before the last step are not kept on the chip, that copy runs anyway, and is always checked.
    """

    cost_at: str = "last"
    check: int = 16

    def __post_init__(self) -> None:
        if self.cost_at not in ("last", "every", "mean"):
            raise CompileError(f'cost_at must be "last", "every" or "mean", not {self.cost_at!r}')
        if isinstance(self.check, bool) or not isinstance(self.check, int) or self.check < 1:
            raise CompileError(f"check must be a number of batches, at least 1, not {self.check!r}")
