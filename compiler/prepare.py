"""The passes over a captured graph, in order: what the flow is derived from."""

from functools import reduce

from echolith.compiler.broadcast import broadcast
from echolith.compiler.fold import folded
from echolith.compiler.graph import Graph
from echolith.compiler.kinks import bent
from echolith.compiler.pairs import refuse_all_pairs
from echolith.compiler.pieces import whole_inputs
from echolith.compiler.reductions import summed
from echolith.compiler.shares import apart, shared
from echolith.compiler.windows import whole

__all__ = ["prepared"]

_PASSES = (folded, bent, refuse_all_pairs, summed, whole, apart, shared, whole_inputs, broadcast)


def prepared(graph: Graph) -> Graph:
    """The same energy in fewer forms; every pass leaves values and derivatives as they are."""
    return reduce(lambda found, step: step(found), _PASSES, graph)
