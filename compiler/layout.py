"""Where parameters live: blocks of the lanes' memory, columns of the blocks, vector banks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from echolith.compiler.design import Block, Placement
from echolith.compiler.errors import CompileError
from echolith.compiler.graph import Affine, Dense, Graph
from echolith.compiler.ir import var
from echolith.compiler.select import Pass
from echolith.compiler.steps import LANES, OUTPUT, Drive, Flow, Matrix, dense, part, window

__all__ = ["Column", "Plan", "masters", "overlap", "plan", "size"]


def size(count: int) -> int:
    """The smallest power of two that is at least ``count`` and at least 2."""
    return 1 << max(1, (count - 1).bit_length())


@dataclass(frozen=True)
class Column:
    """A placement before formats: columns ``start .. start + count`` of a block hold ``scale`` times the sum of the
    ``parameters``, (name, transposed, window) each."""

    block: str
    start: int
    count: int
    parameters: tuple[tuple[str, bool, tuple[int, ...]], ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Plan:
    """``names`` gives the block of every matrix and drive of the flow."""

    blocks: tuple[Block, ...]
    columns: tuple[Column, ...]
    names: dict[str, str]
    used: int  # words per lane


def plan(graph: Graph, flow: Flow, passes: Sequence[Pass], lanes: int, beside: bool) -> Plan:
    """Blocks in the order of their first use, the readout last, one behind the other. ``beside``: a matrix and the
    drive of its rows share tiles, so that one sweep can go over both."""
    shapes: list[tuple[str, int, int]] = []
    shared: set[str] = set()  # blocks that go on in the tiles of the one before
    columns: list[Column] = []
    names: dict[str, str] = {}

    def matrix(m: Matrix) -> None:
        names[m.key] = _numbered("hidden", names.values())
        rows, count = dense(m, flow.values).shape
        shapes.append((names[m.key], rows, count))
        columns.append(Column(names[m.key], 0, count, (_parameter(m, flow),)))

    def drive(d: Drive) -> None:
        names[d.name] = _numbered("drive", names.values())
        shapes.append((names[d.name], d.length, graph.inputs + bool(d.biases)))
        columns.extend(_affine(names[d.name], d, graph.inputs, flow))

    for made in passes:
        for used in (made.matrix, made.drive):
            if used in flow.drives and used not in names:
                drive(flow.drives[used])
                if beside and used == made.drive and made.matrix and shapes[-2][0] == names[made.matrix]:
                    shared.add(names[used])
            elif used and used not in names and used != "readout":
                matrix(flow.matrices[used])
    form = flow.readout
    if form is not None:
        own = form.length if _one(form) else sum(graph.states.values()) + bool(form.biases)
        shapes.append(("readout", form.length, own))
        columns += _readout(graph, form, flow)
    if LANES in flow.values:
        shapes.append(("nudge", lanes, lanes))
        columns.append(Column("nudge", 0, lanes, ((LANES, False, ()),), -0.5))
    blocks, base = _placed(shapes, shared, lanes)
    _check_once(columns, frozenset(name for p in passes for name, _ in p.learn), graph.learned)
    return Plan(tuple(blocks), tuple(columns), {**names, "readout": "readout"}, base)


def _placed(shapes: list[tuple[str, int, int]], shared: set[str], lanes: int) -> tuple[list[Block], int]:
    """Blocks, and the words of a lane that they take."""
    blocks: list[Block] = []
    base = 0
    for (name, rows, count), (after, _, more) in zip(shapes, (*shapes[1:], ("", 0, 0)), strict=True):
        if name in shared:
            blocks.append(Block(name, blocks[-1].base + blocks[-1].columns, rows, count, blocks[-1].stride))
            continue
        stride = count + (more if after in shared else 0)
        blocks.append(Block(name, base, rows, count, stride))
        base += -(-rows // lanes) * stride
    return blocks, base


def _numbered(name: str, taken: Iterable[str]) -> str:
    count = sum(t.startswith(name) for t in taken)
    return f"{name}{count}" if count else name


def _parameter(matrix: Dense | Matrix, flow: Flow) -> tuple[str, bool, tuple[int, ...]]:
    return matrix.parameter, matrix.transposed, window(matrix, flow.values[matrix.parameter].shape)


def _affine(block: str, form: Affine | Drive, inputs: int, flow: Flow) -> list[Column]:
    """Terms over one vector of ``inputs`` elements, or pieces of it that lie apart, then the biases."""
    pieces: dict[tuple[int, int], list] = {}
    for t in form.terms:
        if isinstance(t.matrix, Dense):
            first, stop, _ = t.matrix.within or (0, inputs, inputs)
            pieces.setdefault((first, stop - first), []).append((t.matrix, t.scale))
    if form.biases:
        pieces[inputs, 1] = [(b, b.scale) for b in form.biases]
    found = []
    for (start, count), parts in pieces.items():
        parameters = tuple(_parameter(x, flow) if isinstance(x, Dense) else (x.parameter, False, ())
                           for x, _ in parts)
        found.append(Column(block, start, count, parameters, _scale(parts)))
    return found


def _scale(parts: list) -> float:
    scales = {scale for _, scale in parts}
    if len(scales) > 1:
        names = ", ".join(x.parameter for x, _ in parts)
        raise CompileError(f"energy: {names} are summed with different factors; write the factors into the parameters, "
                           f"not {sorted(scales)}")
    return scales.pop()


def _readout(graph: Graph, form: Affine, flow: Flow) -> list[Column]:
    """Every state's columns, then the biases; or those of the one vector that is read."""
    if _one(form):
        return _affine("readout", form, form.length, flow)
    found, start = [], 0
    for state, units in graph.states.items():
        parts = [(t.matrix, t.scale) for t in form.terms if t.source == var(state) and isinstance(t.matrix, Dense)]
        if parts:
            parameters = tuple(_parameter(m, flow) for m, _ in parts)
            found.append(Column("readout", start, units, parameters, _scale(parts)))
        start += units
    return found + _affine("readout", Affine(form.length, (), form.biases), start, flow)


def _one(form: Affine) -> bool:
    return any(t.source == var(OUTPUT) for t in form.terms)


def _check_once(columns: list[Column], vectors: frozenset[str], learned: frozenset[str]) -> None:
    """No word of a parameter that learns may be at two places; ``vectors`` are in the neuron unit."""
    parts = [(name, window) for c in columns for name, _, window in c.parameters if name in learned]
    twice = sorted({a for i, (a, u) in enumerate(parts) for b, v in parts[i + 1:] if a == b and overlap(u, v)})
    twice = sorted({*twice, *(name for name, _ in parts if name in vectors)})
    if twice:
        raise CompileError("energy: a learned parameter may be in the readout, in a matrix or bias, or in an "
                           f"element-wise function; give each its own, not {', '.join(twice)} twice")


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return not a or not b or (a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3])


def masters(placement: Placement, values: dict[str, np.ndarray], rows: int, width: int) -> np.ndarray:
    """Master words (rows, columns) of a placement from float64 parameters, clipped to 2 * width bits."""
    total = np.zeros((rows, placement.columns))
    for name, transposed, place in zip(placement.parameters, placement.transposed, placement.windows, strict=True):
        value = part(np.asarray(values[name], np.float64), place)
        total += (value.T if transposed else value).reshape(rows, placement.columns)
    limit = 2.0 ** (2 * width - 1)
    words = np.rint(total * placement.scale * 2.0**placement.fraction)
    return np.clip(words, -limit, limit - 1).astype(np.int64)
