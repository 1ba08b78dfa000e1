"""Which rule reads which aten operator. Everything that is not listed here is refused by name."""

from collections.abc import Callable
from dataclasses import replace

from echolith.compiler.elementwise import add_vectors, map_vectors, scaled
from echolith.compiler.matrices import dot, matmul, product
from echolith.compiler.site import Argument, Site, check_shape, outer
from echolith.compiler.spellings import ELEMENTWISE, LOSSES
from echolith.compiler.sums import loss, mean, norm, root, scalar, total
from echolith.compiler.values import Fixed, Product, Root, Scalar, Value, Vector

__all__ = ["RULES"]


def elementwise(site: Site, *args: Argument, **kwargs: float) -> Value:
    if any(isinstance(a, Root) for a in args):
        return root(site, *args)
    if any(isinstance(a, Scalar) for a in args):
        return scalar(site, *args, **kwargs)
    if any(isinstance(a, Product) for a in args):
        raise outer(site)
    if site.operator in ("add", "sub", "rsub"):
        return add_vectors(site, args[0], args[1], **kwargs)
    if site.operator == "mul" and (pairs := product(site, *args)):
        return pairs
    if site.operator in ("mul", "div", "neg") and isinstance(args[0], Vector | Fixed | int | float):
        multiple = scaled(site, *args)
        if multiple is not None:
            return multiple
    return map_vectors(site, ELEMENTWISE[site.operator], *args, **kwargs)


def _addmm(site: Site, bias: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1) -> Value:
    product = elementwise(replace(site, operator="mul"), matmul(site, a, b), alpha)
    return elementwise(replace(site, operator="add"), product, bias, alpha=beta)


def _moved_axes(site: Site, x: Value, *_: object, **__: object) -> Value:
    """Views and copies: allowed as long as no element is lost, repeated or put elsewhere."""
    if isinstance(x, Vector):
        check_shape(site, x.length)
        return replace(x, shape=site.shape)
    if isinstance(x, Scalar):
        return replace(x, shape=site.shape)
    if isinstance(x, Product) and site.operator not in ("clone", "alias", "contiguous"):
        raise outer(site)
    return x


RULES: dict[str, Callable[..., Value]] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(LOSSES, loss),
    "sum": total, "mean": mean, "linalg_vector_norm": norm, "norm": norm,
    "mm": matmul, "mv": matmul, "bmm": matmul, "dot": dot, "vdot": dot,
    "addmm": _addmm, "addmv": _addmm, "baddbmm": _addmm,
    **dict.fromkeys(
        ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "t", "transpose", "permute", "expand", "clone",
         "alias", "contiguous", "lift_fresh_copy", "_to_copy", "select", "slice"), _moved_axes),
}  # fmt: skip
