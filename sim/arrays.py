"""The integer model's arithmetic on arrays: exact products by float64 BLAS, everything else by numpy."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.pipeline import Pipeline, evaluate, table_lookup
from echolith.sim import arith

if TYPE_CHECKING:
    from echolith.sim.force import Force

__all__ = ["EXACT", "Arrays"]

EXACT = 53  # bits of the whole numbers that float64 holds

Array = np.ndarray


class Arrays:
    """All words are int64, (samples, elements), unless a method says otherwise."""

    def __init__(self, design: Design):
        self.hw = design.hardware
        self._tables = [_Lookup(table, self.hw.width, self.hw.segments) for table in design.tables]

    def product(self, a: Array, b: Array) -> Array:
        """a @ b of words that fit an operand; int64 or float64.

        Raises
        ------
        OverflowError
            If a sum may not be exact.
        """
        return self.exact(a, b).astype(np.int64)

    def exact(self, a: Array, b: Array) -> Array:
        """The same as float64."""
        self.check(a, b)
        return np.asarray(a, np.float64) @ np.asarray(b, np.float64)

    def check(self, a: Array, b: Array) -> None:
        """Refuse a product that float64 may not hold."""
        count = a.shape[-1]
        if count << 2 * (self.hw.width - 1) >= 1 << EXACT:  # long sums of small words may be exact still
            bound = float(np.abs(a).max(initial=0)) * float(np.abs(b).max(initial=0)) * count
            if bound >= 2.0**EXACT:
                raise OverflowError(f"a sum of products must stay below 2^{EXACT} for exact BLAS, not {bound:.3g}")

    def sums(self, a: Array, b: Array) -> Any:
        """A `product` for `run` and `kept` alone, ``b`` float64 and contiguous: has a shape and can be reshaped."""
        return self.product(a, b)

    def run(self, pipeline: Pipeline, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Outputs of a pipeline by name; inputs that it does not have are left alone."""
        return evaluate(pipeline, inputs, self._tables, self.hw.width, self.hw.segments)

    def kept(self, acc: Array) -> Array:
        """Sums as they are kept beside the drives."""
        return arith.sat(arith.rnd(acc.astype(np.int64, copy=False), self.hw.drive_shift), self.hw.width)

    def dropped(self, words: Array, bits: int) -> Array:
        """Words without so many fraction bits, as the barrel shifter rounds them."""
        return arith.even(words, bits) if self.hw.stacked and bits > 0 else arith.rnd(words, bits)

    def scaled(self, words: Array, scale: Array, sign: Array) -> Array:
        """Contributions to vectors, rounded at the scale of every sample, (samples, 1), then with its sign."""
        return arith.shr(words, scale) * sign

    def rows(self, words: Array, scale: Array, sign: Array) -> Array:
        """The same of row operands, float64, as the barrel shifter rounds them."""
        found = (arith.even if self.hw.stacked else arith.shr)(words, scale)
        return np.multiply(found, sign, out=found)

    def spread(self, a: Array, b: Array) -> int:
        """The OR of the magnitudes of all differences, as `arith.abs_bits` has them."""
        return int(np.bitwise_or.reduce(arith.abs_bits(a - b), axis=None))

    def step(self, force: "Force") -> bool:
        """Run the whole force of a step at once; whether this can be done."""
        return False

    def push(self, p: Array, nudge: Array | int, reverse: bool) -> Array | None:
        """A kick by nothing but a nudge, in place; which words wrapped, if any."""
        return self._moved(p, 0, nudge, reverse)

    def kick(self, pipeline: Pipeline, p: Array, inputs: Mapping[str, Any], nudge: Array | int, reverse: bool
             ) -> tuple[dict[str, Array], Array | None]:
        """Change momenta in place by a pipeline's force; all its outputs, and which words wrapped, if any."""
        found = self.run(pipeline, inputs)
        return found, self._moved(p, found["force"], nudge, reverse)

    def drift(self, pipeline: Pipeline, q: Array, inputs: Mapping[str, Any], reverse: bool
              ) -> tuple[dict[str, Array], Array | None]:
        """Move positions in place; all outputs of the pipeline, and which words wrapped, if any."""
        found = self.run(pipeline, inputs)
        (np.subtract if reverse else np.add)(q, found["d"], out=q)
        return found, self._wrapped(q)

    def _moved(self, p: Array, force: Array | int, nudge: Array | int, reverse: bool) -> Array | None:
        """`arith.move` in place."""
        (np.add if reverse else np.subtract)(p, force, out=p)
        if reverse and isinstance(nudge, np.ndarray):
            p -= nudge
        return self._wrapped(p)

    def _wrapped(self, words: Array) -> Array | None:
        half = 1 << self.hw.width - 1
        inside = -half <= words.min(initial=0) and words.max(initial=0) < half
        return None if inside else self._wrap(words)

    def _wrap(self, words: Array) -> Array:
        """In place; which words had left their width."""
        left = arith.outside(words, self.hw.width)
        words[:] = arith.wrap(words, self.hw.width)
        return left


class _Lookup:
    """A piecewise-linear table, (2^segments, 2): interpolated, until it was asked for as many words as there are; then
    the results of all of them are kept."""

    def __init__(self, table: Any, width: int, segments: int):
        self._table, self._width, self._segments = np.asarray(table), width, segments
        self._asked, self._results = 0, np.zeros(0, np.int64)

    def __call__(self, x: Array) -> Array:
        if self._results.size:
            return self._results[x]  # negative words count from the end
        self._asked += x.size
        if self._asked >> self._width:
            self._results = self._interpolated(arith.wrap(np.arange(1 << self._width), self._width))
        return self._interpolated(x)

    def _interpolated(self, x: Array) -> Array:
        return table_lookup(x, self._table, self._width, self._segments)
