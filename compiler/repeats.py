"""Couplings whose one small matrix is swept over many positions: convolutions, and learned vectors that are moved."""

import numpy as np

from echolith.compiler import gathers
from echolith.compiler.graph import Convolution, Index
from echolith.compiler.ir import Expr
from echolith.compiler.patches import Patches, patches
from echolith.compiler.steps import ONE, Flow, Linear, Matrix, Outer

__all__ = ["Repeats"]


class Repeats:
    """Adds their steps to ``flow``. What they return are moves whose sum is meant."""

    def __init__(self, flow: Flow):
        self.flow = flow
        self.rows: dict[tuple[str, int], str] = {}  # gather, positions -> row operands

    def convolution(self, name: str, conv: Convolution, x: str) -> list[Expr]:
        """Of ``x``."""
        return self._swept(name, conv, x, conv.transposed)

    def transposed(self, name: str, conv: Convolution, x: str, t: str, learns: bool) -> list[Expr]:
        """The adjoint of ``x`` from that of the result; the gradient of the kernel."""
        if learns:
            for piece, block in self._patches(conv):
                back, ahead = (self._operand(name, v, piece, small)
                               for v, small in ((t, not conv.transposed), (x, conv.transposed)))
                rows, columns = (ahead, back) if conv.transposed else (back, ahead)
                self.flow.steps.append(Outer(block, rows, columns, piece.positions))
        return self._swept(f"{name}_back", conv, t, not conv.transposed)

    def bias(self, name: str, parameter: str, of: tuple[int, ...]) -> Expr:
        """A learned vector's moved elements: a column, applied to the constant one."""
        length = np.size(self.flow.values[parameter])
        values = self.flow.new(f"{name}_bias", length)
        self.flow.steps.append(Linear(values, length, self._column(parameter), False, ONE))
        return self.flow.moved(name, values, of)

    def bias_gradient(self, name: str, parameter: str, of: tuple[int, ...], t: str) -> None:
        """The sum over all places of each element, as a product with ones."""
        back = gathers.adjoint([Index(of)], np.size(self.flow.values[parameter]))
        rows = self._rows(name, self.flow.moved(f"{name}_back", t, sum(back, ())), len(back))
        ones = self.flow.moved(f"{name}_ones", ONE, (0,) * len(back)).name
        self.flow.steps.append(Outer(self._column(parameter), rows, ones, len(back)))

    def _column(self, parameter: str) -> str:
        self.flow.lengths[ONE] = 1
        return self._block(Matrix(parameter, self.flow.values[parameter].ndim == 1))

    def _block(self, block: Matrix) -> str:
        self.flow.matrices[block.key] = block
        return block.key

    def _patches(self, conv: Convolution) -> list[tuple[Patches, str]]:
        """With the key of each group's block."""
        pieces = patches(conv, self.flow.values[conv.parameter].shape[2:])
        return [(p, self._block(Matrix(conv.parameter, False, p.rows if conv.groups > 1 else None))) for p in pieces]

    def _operand(self, name: str, x: str, piece: Patches, small: bool) -> str:
        """A grid as one position after the other: small as rows of the block, large as its columns."""
        if small:
            return self._rows(name, self.flow.moved(f"{name}_pixels", x, piece.pixels), piece.positions)
        return self.flow.moved(f"{name}_patches", x, piece.windows).name

    def _rows(self, name: str, moved: Expr, positions: int) -> str:
        """A move as row operands of so many positions."""
        if (moved.name, positions) not in self.rows:
            self.rows[moved.name, positions] = self.flow.map(f"{name}_rows", self.flow.lengths[moved.name], moved)
        return self.rows[moved.name, positions]

    def _swept(self, name: str, conv: Convolution, x: str, small: bool) -> list[Expr]:
        """The blocks over all positions, from the small grid to the large one or the other way."""
        parts: list[Expr] = []
        for piece, block in self._patches(conv):
            operand = self._operand(name, x, piece, small)
            size = len(piece.windows) if small else len(piece.pixels)
            y = self.flow.new(f"{name}_sums", size)
            self.flow.steps.append(Linear(y, size, block, small, operand, positions=piece.positions))
            large = conv.target_shape if conv.transposed else conv.source_shape
            places = gathers.adjoint([Index(piece.windows)], int(np.prod(large))) if small else [piece.placed]
            parts += [self.flow.moved(name, y, of) for of in places]
        return parts
