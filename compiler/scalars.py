"""Single numbers that a user gives, numpy's among them."""

import math
from numbers import Integral, Real

__all__ = ["real", "whole"]


def whole(value: object, least: int, most: int | None = None) -> int | None:
    """``value`` as an int from ``least`` to ``most``; None if it is not one."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        return None
    found = int(value)
    return found if least <= found and (most is None or found <= most) else None


def real(value: object) -> float | None:
    """``value`` as a finite float; None if it is not one."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return found if math.isfinite(found) else None
