"""A batch as the references of a stack take it: checked, as tensors, with what the cost of every row counts."""

import numpy as np
import torch

from echolith.compiler.errors import CompileError
from echolith.compiler.scalars import whole
from echolith.compiler.stack import Stack

__all__ = ["Objective"]


class Objective:
    """Inputs, targets and factors of the costs. The arguments are those of `stacked.stack_bptt`.

    Attributes
    ----------
    x
        (batch, rows, inputs), float64.
    factors
        (rows, batch): the total is the sum of cost times factor over the rows, averaged over the batch; None where no
        sample has a cost.
    """

    def __init__(self, stack: Stack, X: np.ndarray, Y: np.ndarray, cost_at: str, mask: np.ndarray | None):
        _check(stack, cost_at)
        given, y = np.asarray(X, np.float64), np.asarray(Y)
        if given.ndim != 3 or given.shape[2] != stack.inputs:
            raise CompileError(f"X must be (batch, time, {stack.inputs}), not {given.shape}")
        self.x = torch.as_tensor(given)
        self.last = cost_at == "last"
        axes = 2 if self.last else 3
        vectors = y.ndim == axes and y.shape[-1] == stack.outputs
        classes = y.dtype.kind in "iu" and not vectors  # whole numbers without the axis of the outputs stay whole
        self._y = torch.as_tensor(y.astype(np.int64 if classes else np.float64))
        rows, batch = given.shape[1], given.shape[0]
        weight = np.ones((batch,) if self.last else (batch, rows)) if mask is None else np.asarray(mask, np.float64)
        weight = torch.as_tensor(weight / rows if cost_at == "mean" else weight)
        self.factors = [weight if row == rows - 1 else None for row in range(rows)] if self.last else list(weight.T)

    def target(self, row: int) -> torch.Tensor:
        """(batch, ...)"""
        return self._y if self.last else self._y[:, row]


def _check(stack: Stack, cost_at: str) -> None:
    name = type(stack).__name__
    if cost_at not in ("last", "every", "mean"):
        raise CompileError(f'cost_at must be "last", "every" or "mean", not {cost_at!r}')
    if whole(getattr(stack, "outputs", None), 1) is None:
        raise CompileError(f"{name} must declare outputs, the width of y, a whole number from 1 on, not "
                           f"{getattr(stack, 'outputs', None)!r}")
    if not callable(getattr(stack, "cost", None)):
        raise CompileError(f"{name} must define cost(self, q, y) to have a gradient, not {name} without it")
