"""How parameters learn: what the user chooses besides energy, cost and dynamics."""

from dataclasses import dataclass

from echolith.compiler.design import Rule
from echolith.compiler.errors import CompileError
from echolith.compiler.scalars import real

__all__ = ["AnyRule", "EchoBackpropagation", "HamiltonianEcho", "LagrangianEcho", "named"]

_BOUNDARIES = {
    "initial": "its gradient has a residual that needs the derivative of the last state by every parameter",
    "both": "its trajectory solves a boundary-value problem, which steps in time do not",
    "periodic": "its trajectory solves a boundary-value problem, which steps in time do not",
}


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
    weight_decay : bool
        Hardware that can make parameters smaller, for `Session.fit(weight_decay=)`.
    dissipation : float
        0: momenta that decay are `LagrangianEcho`'s.
    """

    cost_at: str = "last"
    check: int = 16
    weight_decay: bool = False
    dissipation: float = 0.0

    def __post_init__(self) -> None:
        if self.cost_at not in ("last", "every", "mean"):
            raise CompileError(f'cost_at must be "last", "every" or "mean", not {self.cost_at!r}')
        _checked(self.check, self.weight_decay)
        if type(self) is HamiltonianEcho:
            _lossless(self)

    @property
    def lowered(self) -> Rule:
        """What the chip does."""
        return Rule(type(self).__name__)


@dataclass(frozen=True)
class LagrangianEcho(HamiltonianEcho):
    """Lagrangian echo learning: two trajectories of the nudged Lagrangian L + beta * cost that meet a boundary
    condition, and the contrast of dL/dparameter along them.

    On the chip the condition is the final one: nudged trajectories share the free one's last position and momentum.
    Reversible dynamics reach them by running back, which is the Hamiltonian echo: dL/dparameter at given (q, qdot) is
    -dH/dparameter at (q, p). Momenta that decay are reversible too, in the coordinates of `damping`.
    `boundaries.boundary_gradient` has all conditions in float64.

    Parameters
    ----------
    boundary : str
        ``"final"``. ``"initial"``, ``"both"`` and ``"periodic"`` are refused with the reason.
    dissipation : float
        Rate, per unit of time, at which momenta decay; with the cost at the last row and the kinetic energy p**2 / 2.
    """

    boundary: str = "final"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.boundary, str) and self.boundary in _BOUNDARIES:
            raise CompileError(f'boundary must be "final" on a chip: {_BOUNDARIES[self.boundary]}; '
                               f"boundary_gradient(...) computes it in float64, not {self.boundary!r}")
        if self.boundary != "final":
            raise CompileError(f'boundary must be "final", "initial", "both" or "periodic", not {self.boundary!r}')
        if (rate := real(self.dissipation)) is None or rate < 0:
            raise CompileError(f"dissipation must be a number from 0 on, not {self.dissipation!r}")
        if rate and self.cost_at != "last":
            raise CompileError('dissipation needs cost_at="last" on a chip: its states are positions over a factor '
                               "that is 1 at the last row alone, and costs see no factor; boundary_gradient(...) "
                               f"computes others in float64, not {self.cost_at!r}")
        object.__setattr__(self, "dissipation", rate)


@dataclass(frozen=True)
class EchoBackpropagation:
    """Hamiltonian echo backpropagation: parameters have momenta, their gradient words.

    Every step counts them down by dt * dV/dparameter on the way forward and up on the way back. At the turn the cost
    kicks the state, p -= +-eta * dcost/dq, so that what is left of a sample is its -+eta * dcost/dparameter; without a
    kick momenta return bit for bit. The decay step between batches moves parameters by their momenta and damps these:
    `fit`'s learning rate and momentum. While samples run, parameters stay where they are (their mass is large). The
    averaged form: every sample runs with +eta and -eta, side by side, which cancels even orders of eta.

    Lopez-Pastor and Marquardt, PRX 13, 031020 (2023). The cost is that of the last step.

    Parameters
    ----------
    check : int
        An un-nudged run of its own checks the exact return in the first of so many batches.
    weight_decay, dissipation
        As of `HamiltonianEcho`.
    cost_at : str
        ``"last"``.
    """

    check: int = 16
    weight_decay: bool = False
    dissipation: float = 0.0
    cost_at: str = "last"

    def __post_init__(self) -> None:
        if self.cost_at != "last":
            raise CompileError('EchoBackpropagation has its cost at the last step: cost_at must be "last", not '
                               f"{self.cost_at!r}")
        _checked(self.check, self.weight_decay)
        _lossless(self)

    @property
    def lowered(self) -> Rule:
        """What the chip does."""
        return Rule(type(self).__name__, counted=True)


AnyRule = HamiltonianEcho | EchoBackpropagation
_NAMES = ("HamiltonianEcho", "LagrangianEcho", "EchoBackpropagation")


def named(name: str, cost_at: str | None = None, dissipation: float | None = None, weight_decay: bool = False
          ) -> AnyRule:
    """The rule of a name, with its defaults; the cost at the last step if not told."""
    if name not in _NAMES:
        raise CompileError(f"rule must be {', '.join(_NAMES)}, not {name!r}")
    if name == "LagrangianEcho":
        return LagrangianEcho(cost_at or "last", weight_decay=weight_decay, dissipation=dissipation or 0.0)
    if name == "HamiltonianEcho":
        return HamiltonianEcho(cost_at or "last", weight_decay=weight_decay, dissipation=dissipation or 0.0)
    return EchoBackpropagation(cost_at=cost_at or "last", weight_decay=weight_decay, dissipation=dissipation or 0.0)


def _lossless(rule: AnyRule) -> None:
    if rule.dissipation != 0:
        raise CompileError(f"{type(rule).__name__} runs back what it ran, and what dissipation takes from momenta does "
                           "not come back; take LagrangianEcho(dissipation=...), whose coordinates keep it, not "
                           f"dissipation={rule.dissipation!r}")


def _checked(check: object, weight_decay: object) -> None:
    if not isinstance(weight_decay, bool):
        raise CompileError("weight_decay must be True or False, whether hardware for it is made; how much is told to "
                           f"fit, not {weight_decay!r}")
    if isinstance(check, bool) or not isinstance(check, int) or check < 1:
        raise CompileError(f"check must be a number of batches, at least 1, not {check!r}")
