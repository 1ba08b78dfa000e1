"""Where parameters live: blocks of the lanes' memory, columns of the blocks, vector banks."""

from dataclasses import dataclass

import numpy as np

from echolith.compiler.design import Block, Placement
from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Affine, Network, Term

__all__ = ["Column", "Plan", "masters", "plan", "power"]


def power(count: int) -> int:
    """The smallest power of two that is at least ``count`` and at least 2."""
    return 1 << max(1, (count - 1).bit_length())


@dataclass(frozen=True)
class Column:
    """A placement before formats: columns ``start .. start + count`` of a block hold the sum of ``terms``."""

    block: str
    start: int
    count: int
    source: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Plan:
    blocks: tuple[Block, ...]
    columns: tuple[Column, ...]
    used: int  # words per lane


def plan(network: Network, lanes: int) -> Plan:
    """Blocks in the order hidden, drive, readout, one behind the other."""
    shapes: list[tuple[str, int, int]] = []
    columns: list[Column] = []
    if network.couplings:
        affine = network.couplings[0].affine
        shapes.append(("hidden", affine.rows, network.units))
        columns += _columns("hidden", affine, "q", 0, network.units)
        biased = any(t.source == "one" for t in affine.terms)
        if biased or any(t.source == "u" for t in affine.terms):
            shapes.append(("drive", affine.rows, network.inputs + biased))
            columns += _columns("drive", affine, "u", 0, network.inputs)
            columns += _columns("drive", affine, "one", network.inputs, 1)
    if network.readout:
        biased = any(t.source == "one" for t in network.readout.terms)
        shapes.append(("readout", network.readout.rows, network.units + biased))
        columns += _columns("readout", network.readout, "q", 0, network.units)
        columns += _columns("readout", network.readout, "one", network.units, 1)
    blocks, base = [], 0
    for name, rows, count in shapes:
        blocks.append(Block(name, base, rows, count))
        base += -(-rows // lanes) * count
    _check_once(columns)
    return Plan(tuple(blocks), tuple(columns), base)


def _columns(block: str, affine: Affine, source: str, start: int, count: int) -> list[Column]:
    terms = tuple(t for t in affine.terms if t.source == source)
    if not terms:
        return []
    scales = {t.scale for t in terms}
    if len(scales) > 1:
        names = ", ".join(t.parameter for t in terms)
        raise CompileError(f"{names} are summed with different factors; write the factors into the parameters, "
                           f"not {sorted(scales)}")
    return [Column(block, start, count, source, terms)]


def _check_once(columns: list[Column]) -> None:
    names = [t.parameter for c in columns for t in c.terms]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise CompileError("a matrix or bias may enter the energy and the readout once; give each use its own "
                           f"parameter, not {', '.join(twice)} twice")


def masters(placement: Placement, values: dict[str, np.ndarray], rows: int, width: int) -> np.ndarray:
    """Master words (rows, columns) of a placement from float64 parameters, clipped to 2 * width bits."""
    total = np.zeros((rows, placement.columns))
    for name, transposed in zip(placement.parameters, placement.transposed, strict=True):
        value = np.asarray(values[name], np.float64)
        total += (value.T if transposed else value).reshape(rows, placement.columns)
    limit = 2.0 ** (2 * width - 1)
    words = np.rint(total * placement.scale * 2.0**placement.fraction)
    return np.clip(words, -limit, limit - 1).astype(np.int64)
