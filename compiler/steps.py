"""What has to be computed at a position, before anyone says where or how exactly.

    flow ::= steps in order
    step ::= linear: y = M x (+ drive)  |  gather: y_i = x_of(i)  |  map: y = expr(vectors)
           | maximum: y = max of expr(vectors)  |  kick: momentum of a state -= expr
           | outer: gradient of M += rows columns'  |  accumulate: gradient of a vector parameter += expr
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from echolith.compiler.graph import Affine, Bias, Dense, Term
from echolith.compiler.ir import Expr, var

__all__ = [
    "DELTA", "ERROR", "FINE", "LANES", "ONE", "OUTPUT", "SLOPE", "VALUE", "Accumulate", "Drive", "Flow", "Gather",
    "Kick", "Linear", "Map", "Matrix", "Maximum", "Outer", "Step", "added", "dense", "error", "fed", "part", "window",
    "window_text",
]

ONE = "1"  # the vector of the constant one
# Of a read-out that has passes of its own (see `reads`). A user's names have no colon.
OUTPUT = "out:y"
DELTA = "out:delta"  # the cost derivatives as row operands
ERROR = "out:error"  # minus twice as much as a vector
FINE = ":fine"  # behind the name of row operands, those that gradients are made of
LANES = "out:lanes"  # the matrix from row operands to the nudges of the states
VALUE = "out:v"  # and a number: what several places between the layers of a stack read
SLOPE = "out:slope:"  # and the state: ERROR times the derivative of the read-out


_FED, _ERROR = "_fed", "_error"


def fed(layer: str) -> str:
    """The vector that a layer of a stack is fed."""
    return layer + _FED


def error(name: str) -> str:
    """Of a layer, or of what it is fed: dt * dV/d(what it is fed); as a vector of the pair, the echoes' contrast."""
    return name.removesuffix(_FED) + _ERROR


@dataclass(frozen=True)
class Matrix:
    """A parameter with two axes, or a block of it, as it is stored on the chip: transposed if so marked."""

    parameter: str
    transposed: bool
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        return self.parameter + window_text(self) + "'" * self.transposed


def window(matrix: Dense | Matrix, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(row, stop, column, stop) of the block of an array of this shape; () is all of it."""
    if matrix.rows is None and matrix.columns is None:
        return ()
    return (*(matrix.rows or (0, shape[0])), *(matrix.columns or (0, int(np.prod(shape[1:])))))


def window_text(matrix: Dense | Matrix) -> str:
    """The block as it is written in Python, "" for all of the array."""
    if matrix.rows is None and matrix.columns is None:
        return ""
    return "[" + ", ".join(f"{x[0]}:{x[1]}" if x else ":" for x in (matrix.rows, matrix.columns)) + "]"


@dataclass(frozen=True)
class Drive:
    """``B u + b``: one block over the inputs and the constant one."""

    name: str
    length: int
    terms: tuple[Term, ...]
    biases: tuple[Bias, ...]


@dataclass(frozen=True)
class Linear:
    """``name = M x`` or, ``backward``, ``M' x``; plus the drive, if there is one, in the forward direction.

    A vector that depends on the inputs alone is a drive times u."""

    name: str
    length: int
    matrix: str  # key of a matrix, or a drive
    backward: bool
    x: str
    drive: str | None = None
    positions: int = 1  # applied to as many pieces of x, one after the other


@dataclass(frozen=True)
class Gather:
    """``name[i] = x[of[i]]``, 0 where ``of[i]`` is -1."""

    name: str
    length: int
    x: str
    of: tuple[int, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(samples, length) from (samples, length of x)."""
        of = np.array(self.of)
        return np.where(of >= 0, x[:, of], 0)


@dataclass(frozen=True)
class Map:
    """``name = expr`` over vectors of one length and parameters."""

    name: str
    length: int
    expr: Expr


@dataclass(frozen=True)
class Maximum:
    """``name``, of one element, = the largest of the ``length`` elements of ``expr``."""

    name: str
    length: int
    expr: Expr


@dataclass(frozen=True)
class Kick:
    """Momentum of ``state`` -= ``expr``; kicks of one state add up."""

    state: str
    length: int
    expr: Expr


@dataclass(frozen=True)
class Outer:
    """Gradient of ``matrix`` += ``rows`` times ``columns``'; of a drive, the columns are u and the constant one."""

    matrix: str
    rows: str
    columns: str
    positions: int = 1  # summed over as many pieces of both


@dataclass(frozen=True)
class Accumulate:
    """Gradient of a vector parameter += ``expr``, without dt (summed over the elements if it is one number)."""

    parameter: str
    length: int
    expr: Expr


Step = Linear | Gather | Map | Maximum | Kick | Outer | Accumulate


@dataclass
class Flow:
    """``lengths`` of all vectors by name, ``values`` of all parameters, constants of index matrices among them.

    All matrices of drives and of the ``readout`` are dense."""

    steps: list[Step] = field(default_factory=list)
    readout: Affine | None = None
    matrices: dict[str, Matrix] = field(default_factory=dict)
    drives: dict[str, Drive] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def new(self, name: str, length: int) -> str:
        """A vector, named so unless that is taken."""
        while name in self.lengths or name in self.values:
            name += "_"
        self.lengths[name] = length
        return name

    def map(self, name: str, length: int, expr: Expr) -> str:
        """A new vector of that expression."""
        name = self.new(name, length)
        self.steps.append(Map(name, length, expr))
        return name

    def rewritten(self, function: Callable[[Expr], Expr]) -> "Flow":
        """The flow with equal expressions in all its steps."""
        def changed(step: Step) -> Step:
            with_expr = isinstance(step, Map | Maximum | Kick | Accumulate)
            return replace(step, expr=function(step.expr)) if with_expr else step

        return replace(self, steps=[changed(step) for step in self.steps])

    def moved(self, name: str, x: str, of: tuple[int, ...]) -> Expr:
        """A gather, an earlier one if it is the same."""
        for step in self.steps:
            if isinstance(step, Gather) and (step.x, step.of) == (x, of):
                return var(step.name)
        name = self.new(name, len(of))
        self.steps.append(Gather(name, len(of), x, of))
        return var(name)


def dense(matrix: Dense | Matrix, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array that a matrix stands for; a parameter with one axis is one row, a kernel's rows are along its first."""
    array = np.atleast_2d(np.asarray(values[matrix.parameter], np.float64))
    array = array.reshape(len(array), -1)
    rows, columns = (slice(*x) if x else slice(None) for x in (matrix.rows, matrix.columns))
    array = array[rows, columns]
    array = array.T if matrix.transposed else array
    if isinstance(matrix, Dense) and matrix.within:
        first, stop, count = matrix.within
        array = np.pad(array, ((0, 0), (first, count - stop)))
    return array


def part(array: np.ndarray, window: tuple[int, ...]) -> np.ndarray:
    """The block of an array, a view; () is all of it. A kernel has its rows along its first axis."""
    array = array.reshape(len(array), -1) if array.ndim > 2 else array
    return array[window[0]:window[1], window[2]:window[3]] if window else array


def added(array: np.ndarray, matrix: Dense | Matrix, gradient: np.ndarray) -> None:
    """``gradient``, of `dense`, to the block of the parameter's ``array``."""
    place = part(array, window(matrix, array.shape))
    if isinstance(matrix, Dense) and matrix.within:
        gradient = gradient[:, slice(*matrix.within[:2])]
    place += (gradient.T if matrix.transposed else gradient).reshape(place.shape)
