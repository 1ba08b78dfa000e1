"""Four ways to damp momenta that are whole numbers, times 2^bits, by a^1/2 = 1 - 2^-m before and after every drift."""

import numpy as np

__all__ = ["SCHEMES", "Growing", "Rational", "Rounded", "Shifted", "real", "whole"]


class Rounded:
    """p = round(a^1/2 p), undone by p = round(a^-1/2 p): bits are lost.

    ``kick``, ``drift``, ``nudge`` are the exponents of two by which step k multiplies forces, momenta and nudges.
    """

    def __init__(self, m: int):
        """0: no damping."""
        self.lost = -2 * float(np.log2(1 - 2.0**-m)) if m else 0.0  # bits that a step takes from a momentum

    def kick(self, k: int) -> float:
        return 0.0

    def drift(self, k: int) -> float:
        return 0.0

    def nudge(self, k: int) -> float:
        return -self.lost * (k + 1)

    def before(self, p: np.ndarray, k: int) -> np.ndarray:
        """The momenta that drift."""
        return self._half(p)

    def after(self, p: np.ndarray, k: int) -> np.ndarray:
        """The momenta that are kicked."""
        return self._half(p)

    def undo_before(self, p: np.ndarray, k: int) -> np.ndarray:
        return self._undo_half(p)

    def undo_after(self, p: np.ndarray, k: int) -> np.ndarray:
        return self._undo_half(p)

    def _half(self, p: np.ndarray) -> np.ndarray:
        return whole(real(p, self.lost / 2), 0)

    def _undo_half(self, p: np.ndarray) -> np.ndarray:
        return whole(real(p, 0), self.lost / 2)

    def kept(self, steps: int) -> float:
        """Most bits that a unit keeps for the echo, or that its word grows by."""
        return 0.0


class Rational(Rounded):
    """p = p n / d exactly: remainders go into one number per unit, which grows, and come out of it again.

    Of Maclaurin, Duvenaud and Adams, "Gradient-based hyperparameter optimization through reversible learning" (2015).
    Every nudged copy goes on with its own.
    """

    def __init__(self, m: int):
        super().__init__(m)
        self.n, self.d, self.store = 2**m - 1, 2**m, 0

    def _half(self, p: np.ndarray) -> np.ndarray:
        return self._times(p, self.n, self.d)

    def _undo_half(self, p: np.ndarray) -> np.ndarray:
        return self._times(p, self.d, self.n)

    def _times(self, p: np.ndarray, n: int, d: int) -> np.ndarray:
        self.store = self.store * d + p % d
        p = p // d * n + self.store % n
        self.store = self.store // n
        return p

    def kept(self, steps: int) -> float:
        return float(max(int(x).bit_length() for x in np.ravel(self.store)))


class Growing(Rounded):
    """The canonical momentum P = a^-k p is not damped: kicks grow, drifts shrink, and so do p's last bits."""

    def kick(self, k: int) -> float:
        return self.lost * (k + 1)

    def drift(self, k: int) -> float:
        return -self.lost * (k + 0.5)

    def nudge(self, k: int) -> float:
        return 0.0

    def _half(self, p: np.ndarray) -> np.ndarray:
        return p

    def _undo_half(self, p: np.ndarray) -> np.ndarray:
        return p

    def kept(self, steps: int) -> float:
        return self.lost * steps


class Shifted(Growing):
    """P, shifted right by one bit whenever it has doubled; all copies take the bits that drop out back."""

    def __init__(self, m: int):
        super().__init__(m)
        self.bits: dict[int, np.ndarray] = {}  # by step

    def _shifts(self, k: int) -> int:
        """Bits shifted out until step k drifts."""
        return int(self.lost * (k + 0.5))

    def _own(self, k: int) -> int:
        return self._shifts(k) - self._shifts(k - 1) if k else self._shifts(0)

    def kick(self, k: int) -> float:
        return super().kick(k) - self._shifts(k)

    def drift(self, k: int) -> float:
        return super().drift(k) + self._shifts(k)

    def nudge(self, k: int) -> float:
        return -float(self._shifts(k))

    def before(self, p: np.ndarray, k: int) -> np.ndarray:
        if own := self._own(k):
            self.bits[k] = p & ((1 << own) - 1)
        return p >> own

    def undo_before(self, p: np.ndarray, k: int) -> np.ndarray:
        own = self._own(k)
        return p << own | self.bits[k] if own else p

    def kept(self, steps: int) -> float:
        return float(sum(map(self._own, self.bits)))


SCHEMES: dict[str, type[Rounded]] = {"rounded": Rounded, "rational": Rational, "growing": Growing, "shifted": Shifted}


def real(x: np.ndarray, halvings: float) -> np.ndarray:
    """Whole numbers of any size divided by 2^halvings, as floats."""
    shift = max(int(halvings) - 30, 0)
    return (x >> shift).astype(float) * 2.0 ** (shift - halvings)


def whole(x: np.ndarray, doublings: float) -> np.ndarray:
    """The whole numbers next to x 2^doublings, as Python's."""
    shift = max(int(doublings) - 30, 0)
    rounded = np.rint(x * 2.0 ** (doublings - shift))
    return np.array([int(v) for v in rounded.flat], object).reshape(x.shape) << shift
