"""Products of matrices in C, alone and as what a loop of C starts from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

__all__ = ["ACC", "TEXT", "Sums", "from_factors", "place"]

ACC = "acc"  # the input that may come as `Sums`
TEXT = Path(__file__).with_name("product.cpp").read_text()

Array = np.ndarray


class Sums:
    """a @ b of float64 matrices, computed by who needs it; ``b`` is contiguous."""

    def __init__(self, a: Array, b: Array, product: Callable[[Array, Array], Array]):
        self.a, self.b, self._product = a, b, product

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.a), self.b.shape[1]

    def reshape(self, *shape: int) -> Array:
        return self._product(self.a, self.b).reshape(*shape)

    def places(self) -> list[int]:
        """Arguments of what `from_factors` writes, from the depth on."""
        a = self.a if self.a.strides[1] == 8 else np.ascontiguousarray(self.a)
        self._kept = a
        return [a.shape[1], *place(a), *place(self.b)]


def place(array: Array) -> tuple[int, int]:
    """Address, and words from row to row; a vector stands for all rows."""
    assert array.itemsize == 8
    return array.__array_interface__["data"][0], array.strides[0] // 8 if array.ndim == 2 else 0


def from_factors(name: str, kinds: Mapping[str, str], tables: Sequence[int]) -> str:
    """C of a `terms.function` of that name, ``<name>_of``, which takes the factors of its `ACC` first: depth, a, b."""
    arguments = [f"{kind}* {n}, long {n}_stride" for n, kind in kinds.items() if n != ACC]
    arguments += [f"const int64_t* table{slot}" for slot in tables]
    given = ["factor.sums, factor.stride" if n == ACC else f"{n} + i * {n}_stride, {n}_stride" for n in kinds]
    given += [f"table{slot}" for slot in tables]
    return "\n".join([
        f'extern "C" int64_t {name}_of(long rows, long columns, long depth, const double* a, long a_stride,',
        f'const double* b, long b_stride, {", ".join(arguments)}) {{',
        "const Factor factor(kSome, columns, depth, b, b_stride);",
        "int64_t found = 0;",
        "for (long i = 0; i < rows; i += kSome) {",
        "const long some = rows - i < kSome ? rows - i : kSome;",
        "factor.multiplied({a + i * a_stride, a_stride, 1}, some);",
        f'found |= {name}(some, columns, {", ".join(given)});',
        "}", "return found;", "}", ""])
