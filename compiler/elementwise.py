"""Element-wise operators on arrays: one expression, operands broadcast."""

from collections.abc import Callable

from echolith.compiler.ir import Expr
from echolith.compiler.ops import add
from echolith.compiler.site import Argument, Site
from echolith.compiler.spellings import ELEMENTWISE
from echolith.compiler.values import Array, Fixed

__all__ = ["elementwise", "map_elements"]


def elementwise(site: Site, *args: Argument, **options: float) -> Array:
    found = map_elements(site, ELEMENTWISE[site.operator], *args, **options)
    return Array(found.shape, found.expr, _product(site, *args)) if site.operator == "mul" else found


def map_elements(site: Site, function: Callable[..., Expr], *args: Argument, **options: float) -> Array:
    """``function`` of numbers and of arrays broadcast to the result's shape."""
    plain = [site.expression(a) if a is not None else None for a in args]
    try:
        return Array(site.shape, add(function(*plain, **options), 0))
    except TypeError:
        raise site.refuse(
            f"this variant of `{site.operator}` is not supported", "use its plain form", sorted(options) or len(args)
        ) from None


def _product(site: Site, a: Argument, b: Argument) -> tuple[Fixed, Array] | None:
    """(matrix, vector) if this is a matrix times a vector along one of its axes."""
    matrix, vector = (a, b) if isinstance(a, Fixed) else (b, a)
    if not isinstance(matrix, Fixed) or not isinstance(vector, Array) or len(site.shape) != 2:
        return None
    along = vector.size < matrix.tensor.numel() and vector.size in site.shape[-len(vector.shape):]
    return (matrix, vector) if matrix.shape == site.shape and along and vector.size > 1 else None
