"""Passes of one form share one circuit: their vectors get the formats of the widest, their samples are taken together.

Circuits are equal if their formats and tables are, and formats follow calibrated ranges. This is for networks that
would need more circuits than a command can name: rows of an attention, heads, terms that differ in their data alone.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from echolith.compiler.differentiate import names, substitute
from echolith.compiler.ir import var
from echolith.compiler.isa import Opcode
from echolith.compiler.select import Pass

__all__ = ["Alike"]

_SLOTS = ("acc", "q", "r")


class Alike:
    """Groups of passes whose formats differ by less than ``apart`` bits.

    ``values`` are calibrated samples by name, ``fixed`` the formats that are given, ``blocks`` the names of the
    matrices' there, ``fraction`` proposes those of others by name."""

    def __init__(self, passes: Sequence[Pass], values: Mapping[str, np.ndarray], fixed: Mapping[str, int],
                 blocks: Mapping[str, str], fraction: Callable[[str], int], apart: int):
        self.values, self.fixed, self.blocks, self.fraction, self.apart = values, fixed, blocks, fraction, apart
        self.groups: dict[tuple, list[Pass]] = {}
        self.parents: dict[str, str] = {}
        for made in passes:
            if made.expr is not None and made.opcode != Opcode.OUTER:
                self.groups.setdefault(self._key(made), []).append(made)
        for group in self.groups.values():
            for made in group:
                self._unite(group[0], made)

    def shared(self, name: str) -> int:
        """The format of a vector: that of the widest with which it has one."""
        root = self._root(name)
        return min(self.fraction(n) for n in [name, *self.parents] if self._root(n) == root)

    def samples(self, made: Pass) -> dict[str, np.ndarray]:
        """``values`` with those of a pass's operands and parameters beside those of all passes of its group."""
        group = self.groups[self._key(made)] if made.expr is not None else [made]
        if len(group) == 1:
            return dict(self.values)  # as they are
        found, count = dict(self.values), len(next(iter(self.values[v] for v in (made.acc, made.q, made.r) if v)))
        lengths = [self._width(m) for m in group]
        for slot in _SLOTS:
            if getattr(made, slot):
                parts = [np.broadcast_to(self.values[getattr(m, slot)], (count, n))
                         for m, n in zip(group, lengths, strict=True)]
                found[getattr(made, slot)] = np.concatenate(parts, axis=1)
        assert made.expr is not None
        for name in names(made.expr) - made.operands:
            if np.size(self.values[name]) > 1:
                found[name] = np.concatenate([np.broadcast_to(self.values[name], n) for n in lengths])
        return found

    def _width(self, made: Pass) -> int:
        return max(self.values[v].shape[-1] for v in made.operands)

    def _key(self, made: Pass) -> tuple:
        """What passes of one group have in common; a pass that learns is alone."""
        assert made.expr is not None
        if made.learn or not made.operands or made.drive:
            return (id(made),)
        form = substitute(made.expr, {getattr(made, s): var(f":{s}") for s in _SLOTS if getattr(made, s)})
        sizes = tuple(np.size(self.values[n]) for n in sorted(names(made.expr) - made.operands))
        lengths = self._width(made) if max(sizes, default=1) > 1 else 0
        slots = tuple(self._slot(made, s) for s in ("x", *_SLOTS, "result") if s != "x" or made.acc)
        block = self.fixed[self.blocks[made.matrix]] if made.matrix else 0
        return (made.opcode == Opcode.FORWARD, form, block, made.acc == made.result, made.value, made.rows,
                made.maximum, bool(made.state), lengths, slots)

    def _slot(self, made: Pass, slot: str) -> object:
        name = made.source(getattr(made, slot))
        return name and (("given", self.fixed[name]) if name in self.fixed else self.fraction(name) // self.apart)

    def _unite(self, one: Pass, other: Pass) -> None:
        for slot in ("x", *_SLOTS, "result"):
            a, b = one.source(getattr(one, slot)), other.source(getattr(other, slot))
            if a and b and a not in self.fixed and b not in self.fixed:
                self.parents.setdefault(a, a)
                self.parents.setdefault(b, b)
                self.parents[self._root(b)] = self._root(a)

    def _root(self, name: str) -> str:
        while self.parents.get(name, name) != name:
            name = self.parents[name]
        return name
