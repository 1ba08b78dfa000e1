"""The input rows of a run, and what sweeps make of them once for all steps: drives and column operands."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from echolith.sim.model import IntegerModel

__all__ = ["Inputs", "Row"]

Array = np.ndarray


class Row:
    """For ``copies`` of all samples, one after the other. ``drives``: the rows of all kept drives, (samples, rows).
    ``made`` makes column operands of the data words, (samples, columns), as products of sums or of gradients see
    them."""

    def __init__(self, drives: Array, made: Callable[[int, bool], Array], copies: int = 1):
        self.drives, self.copies, self._made, self._operands = drives, copies, made, {}

    @cached_property
    def drive(self) -> Array:
        """(copies * samples, rows)."""
        return self._copied(self.drives)

    def operands(self, columns: int, summed: bool) -> Array:
        """float64, (copies * samples, columns), made once."""
        if (columns, summed) not in self._operands:
            self._operands[columns, summed] = self._copied(self.inputs(columns, summed))
        return self._operands[columns, summed]

    def inputs(self, columns: int, summed: bool) -> Array:
        """The same of the samples."""
        return np.asarray(self._made(columns, summed), np.float64)

    def _copied(self, words: Array) -> Array:
        return np.tile(words, (self.copies, 1)) if self.copies > 1 else words


class Inputs:
    """Rows of data words ``x``, (samples, steps, inputs)."""

    def __init__(self, model: "IntegerModel", x: Array):
        self._model, self._samples = model, len(x)
        self._words = x.swapaxes(0, 1).reshape(len(x) * x.shape[1], x.shape[2])  # those of a row are neighbours
        self._drives = model.drive(self._words)
        self._operands: dict[tuple[int, bool], Array] = {}  # by columns, and whether of sums

    def row(self, row: int, copies: int = 1) -> Row:
        own = slice(row * self._samples, (row + 1) * self._samples)
        return Row(self._drives[own], lambda *key: self._columns(*key)[own], copies)

    def _columns(self, columns: int, summed: bool) -> Array:
        key = columns, summed
        if key not in self._operands:
            words = self._model.operands(self._words, columns)
            self._operands[key] = (self._model.narrow(words) if summed else words).astype(np.float64)
        return self._operands[key]
