"""The typed graph of an energy: what capture produces, whatever the user wrote.

    vector  ::= a state | the input u | a node                        by name
    node    ::= affine: sum of scale * matrix @ expr  +  sum of scale * bias
              | reduce: logsumexp or sum of expr over its elements, a scalar that broadcasts
    expr    ::= element-wise over vectors of one length, scalars, and parameters (see `ir.Expr`)
    energy  ::= sum over terms of sum_i expr_i

Nodes are in topological order and hash-consed: equal sub-graphs are one node. Everything is flat: a state of shape
(channels, width) is a vector in row-major order.
"""

from dataclasses import dataclass, field

import numpy as np

from echolith.compiler.derived import Derived
from echolith.compiler.ir import Expr

__all__ = ["Affine", "Bias", "Convolution", "Dense", "Graph", "Index", "Matrix", "Reduce", "Sum", "Term"]


@dataclass(frozen=True)
class Dense:
    """A parameter with two axes, or a block of it: ``parameter[rows, columns]``, then transposed if so marked.

    ``rows`` and ``columns`` are (start, stop) in the stored array; None is all of the axis. ``within`` is (first,
    stop, count): the block stands in these columns of a matrix that has ``count``, whose others are 0."""

    parameter: str
    transposed: bool = False
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    within: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Index:
    """A frozen 0/1 matrix: element i of the result is ``source[of[i]]``, or 0 where ``of[i]`` is -1."""

    of: tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """``torch.nn.functional.conv1d`` or ``conv2d`` with the parameter as weight and without bias.

    ``transposed`` is the transposed operator (``conv_transpose1d/2d``), whose weight has the same stored shape.
    Shapes are (channels, *spatial)."""

    parameter: str
    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False


Matrix = Dense | Index | Convolution


@dataclass(frozen=True)
class Term:
    """``scale * matrix @ source``; the source is an expression over vectors of the matrix's column count."""

    matrix: Matrix
    source: Expr
    scale: float = 1.0


@dataclass(frozen=True)
class Bias:
    """``scale * parameter``: a vector of the node's length, or one value for all."""

    parameter: str
    scale: float = 1.0


@dataclass(frozen=True)
class Affine:
    """A vector of ``length`` values: the sum of its terms and biases."""

    length: int
    terms: tuple[Term, ...]
    biases: tuple[Bias, ...] = ()


@dataclass(frozen=True)
class Reduce:
    """``kind`` ("sum" or "logsumexp") of ``expr`` over its ``length`` elements: a scalar."""

    kind: str
    expr: Expr
    length: int


@dataclass(frozen=True)
class Sum:
    """``sum_i expr_i`` over ``length`` elements."""

    expr: Expr
    length: int


@dataclass(frozen=True)
class Graph:
    """A captured model.

    Attributes
    ----------
    states : dict
        Units of every state by name, in the user's order.
    inputs, outputs : int
        Widths of ``u`` and ``y``.
    kinetic : dict
        By state: kinetic energy per unit over var("p") and parameters; p^2/2 unless the model says otherwise.
    nodes : dict
        ``z0``, ``z1``, ... over states, "u" and earlier nodes.
    energy : tuple of Sum
    readout : Affine or None
        y over states and nodes; None: predict returns the states, one after the other.
    cost_nodes : dict
        Reductions over "y" (and "target") that the cost uses.
    cost : tuple of Sum
        Over "y", "target" and ``cost_nodes``; empty without a cost.
    classes : bool
        Targets are class numbers; "target" in the cost is their one-hot vector of ``outputs`` elements.
    values : dict
        float64 parameters, buffers and constants by name.
    learned : frozenset
        Names of those that learn, derived ones among them.
    derived : tuple of Derived
        Parameters that are functions of others.
    fed : dict
        Of a stack: lengths of what its layers are fed by others, vectors that are read like states.
    growth : float or None
        Of a damped motion: what its last input is a fraction of; see `homogeneous`.
    """

    states: dict[str, int]
    inputs: int
    outputs: int
    kinetic: dict[str, Expr]
    nodes: dict[str, Affine | Reduce]
    energy: tuple[Sum, ...]
    readout: Affine | None
    cost_nodes: dict[str, Reduce]
    cost: tuple[Sum, ...]
    classes: bool = False
    values: dict[str, np.ndarray] = field(default_factory=dict, hash=False)
    learned: frozenset[str] = frozenset()
    derived: tuple[Derived, ...] = ()
    fed: dict[str, int] = field(default_factory=dict, hash=False)
    growth: float | None = None
