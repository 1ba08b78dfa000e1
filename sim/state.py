"""What the integer model moves, and what it reports."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Outcome", "State"]


@dataclass
class State:
    """Positions and momenta, (samples, units) int64 words.

    Steps are taken by those with ``v``, the memory of which ``q`` is the first part: the constant one and what sweeps
    leave for others follow."""

    q: np.ndarray
    p: np.ndarray
    v: np.ndarray | None = field(default=None, repr=False, compare=False)

    def copy(self) -> "State":
        return State(self.q.copy(), self.p.copy())

    def __getitem__(self, samples: slice) -> "State":
        """Some of the samples; they stay the same memory."""
        return State(self.q[samples], self.p[samples], None if self.v is None else self.v[samples])


@dataclass
class Outcome:
    """What a run reports besides its outputs."""

    wrapped: bool = False
    echo: bool = False  # copy 0 did not return
    gradient: bool = False
    large: bool = False
    response: int = 0
    leading: int = 0
    saturated: int = 0
    strayed: tuple[int, State] | None = None  # the first sample whose copy 0 did not return, and what it is in: (units)
    first: dict[str, int | str] = field(default_factory=dict)  # where a state wrapped first: phase, step, sample, unit

    def returned(self, s: State) -> None:
        """Copy 0 of all samples, which must be at rest."""
        moving = np.flatnonzero((s.q != 0).any(1) | (s.p != 0).any(1))
        if len(moving) and not self.echo:
            self.strayed = int(moving[0]), State(s.q[moving[0]].copy(), s.p[moving[0]].copy())
        self.echo |= len(moving) > 0
