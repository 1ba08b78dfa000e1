"""Outputs that may still be on the chip."""

from typing import Protocol

import numpy as np

__all__ = ["Outputs"]


class _Chip(Protocol):
    def outputs(self, into: int, samples: int) -> np.ndarray: ...


class Outputs:
    """Of one run of ``samples``, from entry ``into`` of the result memory on; fetched once."""

    def __init__(self, chip: _Chip, into: int, samples: int):
        self.into, self._chip, self._samples = into, chip, samples
        self._found: np.ndarray | None = None

    def fetch(self) -> np.ndarray:
        if self._found is None:
            self._found = self._chip.outputs(self.into, self._samples)
        return self._found
