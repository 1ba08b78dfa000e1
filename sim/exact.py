"""Integer arithmetic of whole arrays at the speed of float64 and of reads from memory."""

from typing import Any

import numpy as np

from echolith.compiler.pipeline import table_lookup
from echolith.sim import arith

__all__ = ["Lookup", "product"]

_EXACT = 53  # bits of the whole numbers that float64 holds


def product(a: np.ndarray, b: np.ndarray, width: int) -> np.ndarray:
    """a @ b of matrices of whole numbers, int64 or float64, as int64; operands have at most ``width`` bits.

    Raises
    ------
    OverflowError
        If a sum may not be exact.
    """
    count = a.shape[-1]
    if count << 2 * (width - 1) >= 1 << _EXACT:  # long sums of small words may be exact still
        bound = float(np.abs(a).max(initial=0)) * float(np.abs(b).max(initial=0)) * count
        if bound >= 2.0**_EXACT:
            raise OverflowError(f"a sum of products must stay below 2^{_EXACT} for exact BLAS, not {bound:.3g}")
    return (np.asarray(a, np.float64) @ np.asarray(b, np.float64)).astype(np.int64)


class Lookup:
    """A piecewise-linear table, (2^segments, 2): interpolated, until it was asked for as many words as there are; then
    the results of all of them are kept."""

    def __init__(self, table: Any, width: int, segments: int):
        self._table, self._width, self._segments = np.asarray(table), width, segments
        self._asked, self._results = 0, np.zeros(0, np.int64)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self._results.size:
            return self._results[x]  # negative words count from the end
        self._asked += x.size
        if self._asked >> self._width:
            self._results = self._interpolated(arith.wrap(np.arange(1 << self._width), self._width))
        return self._interpolated(x)

    def _interpolated(self, x: np.ndarray) -> np.ndarray:
        return table_lookup(x, self._table, self._width, self._segments)
