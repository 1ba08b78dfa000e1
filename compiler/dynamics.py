"""How states move: what the user chooses besides energy and cost."""

from dataclasses import dataclass

from echolith.compiler.errors import CompileError
from echolith.compiler.isa import LOOP_BITS
from echolith.compiler.scalars import real, whole

__all__ = ["ROWS", "Leapfrog"]

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
