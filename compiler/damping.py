"""Dissipation without loss: in coordinates that grow as its momenta decay, a damped leapfrog is one that is not damped.

With a = exp(-rate * dt) a damped step, ``p *= a^1/2; q += dt p; p *= a^1/2; p -= dt dV/dq(q, u)``, means for positions

    q_{k+1} - (1 + a) q_k + a q_{k-1} = -dt^2 a^1/2 dV/dq(q_k, u)

and for y_k = q_k / e_k with e_k = a^((k - K) / 2), K the last step (Liouville's transformation, in discrete time)

    y_{k+1} - 2 y_k + y_{k-1} = -dt^2 dV_k/dy(y_k, u),   V_k(y, u) = V(e_k y, u) / e_k^2 - kappa / 2 sum y^2
    kappa = (a^1/2 + a^-1/2 - 2) / dt^2

exactly: a leapfrog that every echo undoes bit for bit, in an energy that knows the time. The information that damping
loses stays in the last places of y and its momentum, log2(e) * rate * dt / 2 bits of each a step. At the last step y is
q, and so is what a cost at the last row reads; the contrast of the echoes is the gradient through the damped steps.

The chip reads u / e_k, 1 / e_k, and e_k as a fraction of a power of two, in row k. `damped` makes V_k of V,
`homogeneous` brings their factors together.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["FACTORS", "Damping"]

FACTORS = 2  # inputs beside the model's own


@dataclass(frozen=True)
class Damping:
    """What makes a chip's inputs of a model's.

    Attributes
    ----------
    decay : float
        rate * dt.
    steps : int
        Integrator steps of a sample.
    substeps : int
        Steps, rows of the chip, that see the same row of the model's inputs.
    """

    decay: float
    steps: int
    substeps: int

    @property
    def _growth(self) -> np.ndarray:
        """e of every step, (steps,): from its largest to 1."""
        return np.exp(self.decay * np.arange(self.steps - 1, -1, -1) / 2)

    @property
    def largest(self) -> float:
        """The power of two that e is a fraction of."""
        return float(2.0 ** np.ceil(np.log2(self._growth[0])))

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """(batch, steps, inputs + 2) of (batch, steps / substeps, inputs)."""
        factors = np.stack([1 / self._growth, self._growth / self.largest], axis=1)
        rows = np.repeat(x, self.substeps, axis=1) / self._growth[:, None]
        return np.concatenate([rows, np.broadcast_to(factors, (len(x), *factors.shape))], axis=2)
