"""A model whose momenta decay as one whose momenta do not: see `damping`."""

import copy
import warnings

import numpy as np

from echolith.compiler.damping import FACTORS, Damping
from echolith.compiler.dynamics import ROWS, Leapfrog
from echolith.compiler.errors import CompileError
from echolith.compiler.hints import input_hint
from echolith.compiler.learning import LagrangianEcho
from echolith.compiler.plain import shaped
from echolith.compiler.stack import Stack

__all__ = ["damped"]

_MOST = 6.0  # rate * duration: the first positions have 4.3 bits less than the last ones
_ROUGH = 4.0  # of it, beyond which parameters with a small share of the gradient may lose theirs in training


def damped(model, dynamics: Leapfrog, rule: LagrangianEcho, calibrate):
    """Model, dynamics and calibration data of the leapfrog that is not damped, and the damping.

    Raises
    ------
    CompileError
        No data, a kinetic energy of the model's own, or a duration in which too many bits decay.
    """
    if calibrate is None or calibrate[1] is None:
        raise CompileError("dissipation needs calibrate=(X, Y), whose rows tell for how long momenta decay, not None")
    if isinstance(model, Stack):
        raise CompileError("dissipation takes single networks: compile stacks with dissipation=0, not "
                           f"{rule.dissipation:g}")
    if callable(getattr(model, "kinetic", None)):
        raise CompileError("dissipation needs the kinetic energy p**2 / 2 on a chip: leave kinetic out, and scale the "
                           "state's energy instead, not kinetic of its own")
    if not isinstance(inputs := getattr(model, "inputs", None), int) or not callable(getattr(model, "energy", None)):
        return model, dynamics, calibrate, None  # refused where models are read
    x = shaped("X", calibrate[0], (None, None, inputs), "(batch, steps, inputs)", CompileError,
               lambda found: input_hint(found, inputs))
    steps = x.shape[1] * dynamics.substeps
    if steps > ROWS:
        raise CompileError(f"dissipation makes every substep a row of the chip, which takes {ROWS} of them, not "
                           f"{steps}")
    damping = Damping(rule.dissipation * dynamics.dt, steps, dynamics.substeps)
    duration = damping.decay * (steps - 1)
    bits = f"what decays stays in the words of the states, {duration / 2 / np.log(2):.1f} bits of each"
    if duration > _MOST:
        raise CompileError(f"dissipation * dt * steps must be at most {_MOST:g}: {bits}; make dissipation smaller or "
                           f"samples shorter, not {duration:.4g}")
    if duration > _ROUGH:
        warnings.warn(f"dissipation * dt * steps is {duration:.3g}: {bits}. Once trained, parameters with a small "
                      f"share of the gradient may lose theirs beyond {_ROUGH:g}; look at design.precision_report(X, Y, "
                      "values=chip.state_dict())", stacklevel=4)
    return (_transformed(model, damping, dynamics.dt), Leapfrog(dynamics.dt, 1), (damping.inputs(x), *calibrate[1:]),
            damping)


def _transformed(model, damping: Damping, dt: float):
    """The model, its parameters and all, with the energy V_k."""
    own, inputs, largest = type(model), model.inputs, damping.largest
    kappa = float(4 * np.sinh(damping.decay / 4) ** 2 / dt**2)

    def energy(self, *arguments):
        *states, u = arguments
        inverse, growth = u[inputs], largest * u[inputs + 1]
        potential = own.energy(self, *(growth * y for y in states), growth * u[:inputs])
        return inverse**2 * potential - kappa / 2 * sum((y**2).sum() for y in states)

    found = copy.copy(model)
    found.__dict__.pop("inputs", None)
    found.__class__ = type(own.__name__, (own,), {"energy": energy, "inputs": inputs + FACTORS,
                                                  "__module__": own.__module__})
    return found
