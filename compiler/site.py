"""Where an operator stands, what its plain operands are, and the refusals that several rules share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Expr, const
from echolith.compiler.ops import mul
from echolith.compiler.trace import refusal
from echolith.compiler.values import Fixed, Piece, Space, Store, Value, Vector, settle

__all__ = ["FORM", "Argument", "Site", "check_shape", "moved", "number", "operand", "outer", "scaled_pieces", "single",
           "spaces_differ"]

Argument = Value | float | None
FORM = "write the energy as elementwise(q) + sum(v(W q + B u + b))"


@dataclass(frozen=True)
class Site:
    """The operator being read: where it stands and what it returns."""

    method: str
    store: Store
    operator: str  # without overload and in-place underscore
    line: str | None
    shape: tuple[int, ...]

    def refuse(self, what: str, remedy: str, value: object) -> CompileError:
        return refusal(self.method, self.line, what, remedy, value)

    def of_sum(self, remedy: str = FORM) -> CompileError:
        return self.refuse("a nonlinear function of a sum over units couples all of them", remedy, self.operator)


def number(site: Site, value: Argument) -> Expr | None:
    """A number, a known scalar or a learned scalar as an expression; None for anything else."""
    if isinstance(value, int | float):
        return const(value)
    if isinstance(value, Fixed) and value.tensor.numel() == 1:
        return site.store.expression(value)
    return site.store.expression(value) if isinstance(value, Fixed) and value.number() is not None else None


def scaled_pieces(site: Site, pieces: Sequence[Piece], factor: Expr) -> list[Piece]:
    if factor.op != "const" and any(p.space.kind != "q" for p in pieces):
        raise site.refuse(
            f"a trainable gain multiplies a function of [{next(p.space for p in pieces if p.space.kind != 'q')}]",
            "absorb it in the matrix and bias, or freeze it with requires_grad_(False)", factor,
        )  # fmt: skip
    return [replace(p, expr=mul(factor, p.expr)) for p in pieces]


def single(site: Site, vector: Vector) -> Piece:
    pieces = settle(site.store, vector.pieces, single=True)
    if len(pieces) > 1:
        raise spaces_differ(site, [p.space for p in pieces])
    return pieces[0]


def spaces_differ(site: Site, spaces: Sequence[Space]) -> CompileError:
    kinds = " and ".join(f"[{s}]" for s in spaces)
    return site.refuse(f"`{site.operator}` combines vectors from different spaces", FORM, kinds)


def outer(site: Site) -> CompileError:
    return site.refuse(
        f"`{site.operator}` makes all pairs of two vectors", FORM, f"an array of shape {site.shape}"
    )


def check_shape(site: Site, length: int) -> None:
    size = 1
    for n in site.shape:
        size *= n
    if size != length:
        raise outer(site)


def operand(site: Site, space: Space, fixed: Fixed) -> Expr:
    """A constant operand of an element-wise operator over ``space``."""
    expr = site.store.expression(fixed)
    if expr is None:
        raise moved(site, fixed)
    if expr.op != "const" and space.kind != "q":
        kind = "trainable" if fixed.learned else "per-row"
        raise site.refuse(
            f"a {kind} gain or shift inside the potential over [{space}]",
            "absorb a gain in W and add a shift as a bias before the potential", expr,
        )  # fmt: skip
    return expr


def moved(site: Site, fixed: Fixed) -> CompileError:
    part = fixed.parts[0]
    return site.refuse(
        f"{part.name} is not used as it is stored, shape {tuple(site.store.values[part.name].shape)}",
        "declare a parameter of the shape that is used (a vector, or a matrix with two axes)",
        f"a view of shape {tuple(fixed.tensor.shape)}",
    )
