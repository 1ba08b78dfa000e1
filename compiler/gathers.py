"""Index matrices as gathers: how many, and whether they are worth it.

A matrix of zeros and ones with at most m ones in a row is a sum of m gathers, its transpose one of as many as a column
has. A gather touches every element of its result, a dense matrix a weight for each pair of elements.
"""

from collections.abc import Iterable, Sequence

from echolith.compiler.graph import Index, Term

__all__ = ["adjoint", "gathered", "rounds", "worth"]

_PASS = 8  # elements that a pass costs before its first


def rounds(pairs: Iterable[tuple[int, int]], length: int) -> list[tuple[int, ...]]:
    """Gathers of ``length`` elements whose sum brings every (place, source) pair's source to its place."""
    found: list[list[int]] = []
    filled = [0] * length
    for place, source in pairs:
        if filled[place] == len(found):
            found.append([-1] * length)
        found[filled[place]][place] = source
        filled[place] += 1
    return [tuple(of) for of in found]


def _pairs(indices: Iterable[Index]) -> list[tuple[int, int]]:
    return [(place, source) for index in indices for place, source in enumerate(index.of) if source >= 0]


def adjoint(indices: Sequence[Index], columns: int) -> list[tuple[int, ...]]:
    """The gathers that together are the transpose of the sum of ``indices`` over ``columns`` elements."""
    return rounds([(source, place) for place, source in _pairs(indices)], columns)


def gathered(terms: Sequence[Term], length: int) -> list[Term]:
    """Moves of one source with as few gathers as there can be, those of each factor apart."""
    scales = dict.fromkeys(t.scale for t in terms)
    return [Term(Index(of), terms[0].source, scale) for scale in scales
            for of in rounds(_pairs(_of(terms, scale)), length)]


def _of(terms: Sequence[Term], scale: float) -> list[Index]:
    return [t.matrix for t in terms if t.scale == scale and isinstance(t.matrix, Index)]


def worth(terms: Sequence[Term], length: int, columns: int) -> bool:
    """Whether gathers of one source and their transposes touch fewer elements than a dense matrix has words."""
    forward = len(gathered(terms, length)) * (length + _PASS)
    backward = sum(len(adjoint(_of(terms, scale), columns)) for scale in {t.scale for t in terms}) * (columns + _PASS)
    return forward + backward < length * columns
