"""Where an operator stands, and the refusals that several rules share."""

from collections.abc import Sequence
from dataclasses import dataclass

from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Reduce
from echolith.compiler.ir import Expr
from echolith.compiler.lines import refusal
from echolith.compiler.values import Array, Classes, Fixed, Store, Value

__all__ = ["FORM", "LARGEST", "Argument", "Site"]

Argument = Value | float | None
FORM = "use element-wise functions, sums, logsumexp, moves of elements, matrices and convolutions"
LARGEST = 65536  # elements of an array that exists only to be summed


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

    def unsupported(self, value: object, remedy: str = FORM) -> CompileError:
        return self.refuse(f"`{self.operator}` is not supported", remedy, value)

    def class_as_number(self) -> CompileError:
        remedy = "use cross_entropy, nll_loss, multi_margin_loss or gather"
        return self.refuse("a class is used as a number", remedy, self.operator)

    def of_parameters(self, value: object, remedy: str = "") -> CompileError:
        """``remedy`` comes before the general one."""
        return self.refuse(
            f"`{self.operator}` makes a function of learned parameters",
            f"{remedy}make the result itself the nn.Parameter, or freeze its parts with requires_grad_(False)", value,
        )  # fmt: skip

    def reduce(self, kind: str, expr: Expr, length: int) -> Expr:
        """A scalar over ``length`` elements of ``expr``."""
        if length == 1:
            return expr
        if not self.store.nodes.given(expr) and self.store.width(expr) > 1:
            raise self.of_parameters(expr, "leave it out if it moves no state (weight decay), ")
        return self.store.nodes.add(Reduce(kind, expr, length))

    def expression(self, value: Argument, shape: tuple[int, ...] | None = None) -> Expr | float:
        """An operand broadcast to ``shape`` (the result's): an expression over elements, or a number."""
        if isinstance(value, Fixed | Array):
            return self.store.expression(value, self.shape if shape is None else shape)
        if isinstance(value, int | float):
            return value
        if isinstance(value, Classes):
            raise self.class_as_number()
        raise self.unsupported(type(value).__name__)

    def array(self, value: Argument) -> Array:
        """An operand as an array of its own shape."""
        if isinstance(value, Array):
            return value
        if isinstance(value, Fixed):
            expr = self.store.expression(value, value.shape)
            return Array(value.shape, expr)
        raise self.unsupported(type(value).__name__)

    def bounded(self, shape: Sequence[int]) -> None:
        """Refuses an array of too many elements."""
        size = 1
        for n in shape:
            size *= n
        if size > LARGEST:
            raise self.refuse(
                f"`{self.operator}` makes all pairs of two vectors",
                "write it as a matrix product, e.g. cos(a - b) = cos a cos b + sin a sin b", f"shape {tuple(shape)}",
            )  # fmt: skip
