"""The input rows of a run, and what sweeps make of them once for all steps: drives and column operands."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from echolith.sim.model import IntegerModel

__all__ = ["Inputs", "Row"]

Array = np.ndarray


class Row:
    """``u`` are data words, (samples, inputs), ``drive`` the rows of all kept drives. ``operands`` makes column
    operands of ``u``, (samples, columns), as products of sums or of gradients see them."""

    def __init__(self, u: Array, drive: Array, operands: Callable[[int, bool], Array]):
        self.u, self.drive = u, drive
        self._make, self._operands = operands, {}

    def operands(self, columns: int, summed: bool) -> Array:
        """float64, made once."""
        if (columns, summed) not in self._operands:
            self._operands[columns, summed] = np.asarray(self._make(columns, summed), np.float64)
        return self._operands[columns, summed]


class Inputs:
    """Rows of data words ``x``, (samples, steps, inputs)."""

    def __init__(self, model: "IntegerModel", x: Array):
        self._model, self._x = model, x
        self._words = x.reshape(len(x) * x.shape[1], x.shape[2])
        self._drives = self._apart(model.drive(self._words))
        self._operands: dict[tuple[int, bool], Array] = {}  # by columns, and whether of sums

    def row(self, row: int, copies: int = 1) -> Row:
        """For that many copies of all samples, one after the other."""
        def copied(words: Array) -> Array:
            return np.tile(words[:, row], (copies, 1)) if copies > 1 else words[:, row]

        return Row(copied(self._x), copied(self._drives), lambda *key: copied(self._columns(*key)))

    def _columns(self, columns: int, summed: bool) -> Array:
        key = columns, summed
        if key not in self._operands:
            words = self._model.operands(self._words, columns)
            self._operands[key] = self._apart((self._model.narrow(words) if summed else words).astype(np.float64))
        return self._operands[key]

    def _apart(self, words: Array) -> Array:
        return words.reshape(*self._x.shape[:2], words.shape[1])
