"""What a node of a traced graph stands for: known tensors, and arrays whose elements are expressions over vectors.

    Fixed    parameters, buffers and constants: known now
    Array    elements, in row-major order, of an expression over the vectors of `Nodes`
    Classes  the class number that is the target of a cost
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch

from echolith.compiler.derived import Derived, Operand
from echolith.compiler.differentiate import names, substitute
from echolith.compiler.graph import Affine, Index, Reduce, Term
from echolith.compiler.ir import Expr, const, param, var
from echolith.compiler.ops import add, intern, mul

__all__ = ["Array", "Classes", "Fixed", "Nodes", "Part", "Store", "Value"]

_LONGEST = 48  # characters of the name of a function of parameters


@dataclass(frozen=True, eq=False)
class Part:
    """A named array inside a Fixed: ``scale * array``, moved as ``probe`` shows.

    ``probe`` holds the flat index, in the array, of every element: any view, slice or permutation can be read off it.
    """

    name: str
    scale: float
    probe: torch.Tensor


@dataclass(frozen=True, eq=False)
class Fixed:
    """A known tensor. It is the sum of ``parts``; without parts it is an anonymous constant.

    With an ``expr`` it is this element-wise function of its parts, which are the variables "0", "1", ... ``line`` is
    the source of the last operator on learned parts."""

    tensor: torch.Tensor
    parts: tuple[Part, ...] = ()
    learned: bool = False
    expr: Expr | None = None
    line: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def form(self) -> Expr:
        """This value as a function of its parts."""
        total = const(0)
        for i, part in enumerate(self.parts if self.expr is None else ()):
            total = add(total, mul(part.scale, intern(var(str(i)))))
        return total if self.expr is None else self.expr

    def number(self) -> float | None:
        """The one number that this constant repeats, or None."""
        if self.learned or self.tensor.numel() == 0 or not bool((self.tensor == self.tensor.flatten()[0]).all()):
            return None
        return float(self.tensor.flatten()[0])


@dataclass(frozen=True)
class Array:
    """``product`` remembers that the elements are matrix * vector, until a sum makes a matrix-vector product of it."""

    shape: tuple[int, ...]
    expr: Expr
    product: tuple[Fixed, "Array"] | None = None

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Classes:
    shape: tuple[int, ...]


Value = Fixed | Array | Classes | Sequence[Array]


def derive(store: "Store", value: Fixed, kind: str, sizes: tuple[int, ...], shape: tuple[int, ...]) -> Derived:
    """The function ``value``, or its sums or largest elements, with a name of its own."""
    operands: dict[str, Operand] = {}
    texts: dict[str, Expr] = {}
    for i, part in enumerate(value.parts):
        text = _unique(_text(store, part), operands)
        operands[text] = Operand(part.name, () if store.in_place(part) else tuple(part.probe.flatten().tolist()))
        number = store.repeated(part.name)
        texts[str(i)] = param(text) if number is None else const(number)
    expr = substitute(value.form, texts)
    operands = {text: operand for text, operand in operands.items() if text in names(expr)}
    name = str(expr)[1:-1] if str(expr).startswith("(") else str(expr)
    name = name if kind == "map" else f"{kind}({name})"
    return Derived(_named(store, name, operands), expr, operands, shape, value.line or "", kind, sizes)


def multiply(store: "Store", a: Fixed, b: Fixed, sizes: tuple[int, ...], shape: tuple[int, ...], line: str | None
             ) -> Derived:  # fmt: skip
    """The products of the matrices in ``a`` and ``b``; see `Derived`."""
    operands: dict[str, Operand] = {}
    for value in (a, b):
        part = store.whole(value)
        of = () if store.in_place(part) and store.values[part.name].size > 1 else tuple(part.probe.flatten().tolist())
        operands[_unique(_text(store, part), operands)] = Operand(part.name, of)
    name = " @ ".join(f"({text})" if " " in text else text for text in operands)
    return Derived(_named(store, name, operands), const(0), operands, shape, line or "", "product", sizes)


def _named(store: "Store", name: str, operands: dict[str, Operand]) -> str:
    name = name if len(name) <= _LONGEST else f"f({', '.join(dict.fromkeys(o.parameter for o in operands.values()))})"
    name = name if len(name) <= _LONGEST else f"f({len(operands)})"
    return _unique(name, {**store.values, **store.nodes.lengths})


def _text(store: "Store", part: Part) -> str:
    stored = store.values[part.name].shape
    if store.in_place(part):
        return part.name
    if len(stored) == 2 and torch.equal(part.probe, torch.arange(stored[0] * stored[1]).reshape(stored).T):
        return f"{part.name}.T"
    return f"{part.name}[..]"


def _unique(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _identity(parts: Sequence[Part]) -> list[tuple[str, tuple[int, ...]]]:
    return [(p.name, tuple(p.probe.flatten().tolist())) for p in parts]


class Nodes:
    """The vectors of a graph by name: the given ones, and nodes in topological order, equal ones once."""

    def __init__(self, given: Mapping[str, int], prefix: str = "z"):
        self.prefix = prefix
        self.lengths = dict(given)
        self.nodes: dict[str, Affine | Reduce] = {}
        self._names: dict[tuple, str] = {}

    def add(self, node: Affine | Reduce) -> Expr:
        """The variable that stands for ``node``, whose expressions are shared nodes (see `ops.intern`)."""
        if isinstance(node, Affine):  # identity stands for value, as in `ops.intern`
            terms = tuple((t.matrix, id(t.source), t.scale) for t in node.terms)
            key, length = (node.length, terms, node.biases), node.length
        else:
            key, length = (node.kind, id(node.expr), node.length), 1
        if key not in self._names:
            name = f"{self.prefix}{len(self.nodes)}"
            self._names[key], self.nodes[name], self.lengths[name] = name, node, length
        return intern(var(self._names[key]))

    def given(self, expr: Expr) -> frozenset[str]:
        """Names of the states, inputs and targets that ``expr`` depends on, through whatever nodes."""
        found: set[str] = set()
        seen: set[str] = set()
        stack = [expr]
        while stack:
            for name in names(stack.pop()) - seen:
                seen.add(name)
                node = self.nodes.get(name)
                if node is None:
                    found |= {name} & set(self.lengths)
                else:
                    stack += [t.source for t in node.terms] if isinstance(node, Affine) else [node.expr]
        return frozenset(found)


class Store:
    """Float64 arrays by name: those of the model, and constants that arise while reading its methods; and nodes."""

    def __init__(self, values: dict[str, np.ndarray], learned: Iterable[str], given: Mapping[str, int]):
        self.values = dict(values)
        self.learned = frozenset(learned)
        self.nodes = Nodes(given)
        self.derived: dict[str, Derived] = {}
        self._functions: dict[tuple, tuple[str, Expr]] = {}

    def constant(self, array: np.ndarray) -> str:
        """The name of a frozen constant; equal constants share one name."""
        array = np.asarray(array, np.float64)
        for name, value in self.values.items():
            if name not in self.learned and value.shape == array.shape and np.array_equal(value, array):
                return name
        name = f"constant{len(self.values)}"
        while name in self.values:
            name += "_"
        self.values[name] = array
        return name

    def size(self, name: str) -> int:
        """Elements of a vector or parameter."""
        return self.nodes.lengths[name] if name in self.nodes.lengths else self.values[name].size

    def width(self, expr: Expr) -> int:
        """Elements of ``expr``; 1 if it is the same everywhere."""
        return max((self.size(name) for name in names(expr)), default=1)

    def expression(self, value: "Fixed | Array", shape: tuple[int, ...]) -> Expr:
        """``value`` broadcast to ``shape`` as an expression over its elements."""
        size = prod(shape)
        if isinstance(value, Array):
            if self.width(value.expr) == 1 or value.size == size:
                return value.expr
            probe = torch.arange(value.size).reshape(value.shape).broadcast_to(shape)
            return self.moved([(value.expr, value.size)], probe)
        number = value.number()
        if number is not None:
            return const(number)
        if not value.learned:
            flat = value.tensor.to(torch.float64).broadcast_to(shape).flatten().numpy()
            return intern(param(self._frozen(flat)))
        value = value if value.expr is None else self.derived_from(value)
        total = const(0)
        for part in value.parts:
            total = add(total, mul(part.scale, self._part(part, shape)))
        return total

    def _part(self, part: Part, shape: tuple[int, ...]) -> Expr:
        part = replace(part, probe=part.probe.broadcast_to(shape))
        stored = self.values[part.name]
        if stored.ndim > 1 and len(stored) < stored.size and part.name in self.learned and not self.in_place(part):
            part = self._apart(part)
        array, leaf, number = self.values[part.name], intern(param(part.name)), self.repeated(part.name)
        if number is not None:
            return const(number)
        return self.moved([(leaf, array.size)], part.probe) if array.size > 1 else leaf

    def repeated(self, name: str) -> float | None:
        """The one number that a frozen parameter repeats, or None."""
        array = self.values[name]
        return float(array.flat[0]) if name not in self.learned and bool((array == array.flat[0]).all()) else None

    def in_place(self, part: Part) -> bool:
        """Whether ``part`` is all of its parameter in its own order, or its one value."""
        size = self.values[part.name].size
        return size == 1 or part.probe.numel() == size and torch.equal(part.probe.flatten(), torch.arange(size))

    def derived_from(self, value: Fixed) -> Fixed:
        """A function of learned parameters as one derived parameter; equal functions are one."""
        return self._derived(value, "map", (), value.tensor)

    def reduced(self, kind: str, value: Fixed, count: int, result: torch.Tensor, line: str | None) -> Fixed:
        """Sums or largest of so many neighbouring elements as a derived parameter."""
        return self._derived(replace(value, line=line), kind, (value.tensor.numel() // count, count), result)

    def _derived(self, value: Fixed, kind: str, sizes: tuple[int, ...], result: torch.Tensor) -> Fixed:
        form = value.form
        key = (id(form), kind, tuple(result.shape), sizes, *_identity(value.parts))
        return self._once(key, form, lambda: derive(self, value, kind, sizes, tuple(result.shape)), result, value.line)

    def multiplied(self, a: Fixed, b: Fixed, sizes: tuple[int, ...], result: torch.Tensor, line: str | None) -> Fixed:
        """Matrix products as a derived parameter; see `Derived`."""
        a, b = (replace(v, parts=(self.whole(v),), expr=None) for v in (a, b))
        key = ("product", tuple(result.shape), sizes, *_identity(a.parts), *_identity(b.parts))
        return self._once(key, const(0), lambda: multiply(self, a, b, sizes, tuple(result.shape), line), result, line)

    def _once(self, key: tuple, form: Expr, make: Callable[[], Derived], result: torch.Tensor, line: str | None
              ) -> Fixed:  # fmt: skip
        if key not in self._functions:
            made = make()
            self.values[made.name], self.derived[made.name] = result.to(torch.float64).numpy(), made
            self.learned |= {made.name}
            self._functions[key] = made.name, form  # which keeps its id
        probe = torch.arange(result.numel()).reshape(result.shape)
        return Fixed(result, (Part(self._functions[key][0], 1.0, probe),), True, line=line)

    def whole(self, value: Fixed) -> Part:
        """A known tensor as one array, moved."""
        if value.learned and value.expr is None and len(value.parts) == 1 and value.parts[0].scale == 1:
            return value.parts[0]
        if value.learned:
            return self.derived_from(value).parts[0]
        array = value.tensor.to(torch.float64).contiguous()
        return Part(self.constant(array.numpy()), 1.0, torch.arange(array.numel()).reshape(array.shape))

    def _apart(self, part: Part) -> Part:
        """Elements of a learned array of several axes as elements of a learned vector that has no others."""
        used, places = torch.unique(part.probe, return_inverse=True)
        if len(used) == part.probe.numel():
            used, places = part.probe, torch.arange(len(used)).reshape(part.probe.shape)
        values = torch.as_tensor(self.values[part.name]).flatten()[used]
        made = self.derived_from(Fixed(values, (Part(part.name, 1.0, used),), True))
        return Part(made.parts[0].name, part.scale, places)

    def _frozen(self, flat: np.ndarray) -> str:
        for name, value in self.values.items():
            if name not in self.learned and value.size == flat.size and np.array_equal(value.ravel(), flat):
                return name
        return self.constant(flat)

    def moved(self, sources: Sequence[tuple[Expr, int]], of: torch.Tensor) -> Expr:
        """A vector whose elements are taken from ``sources``, one after the other; -1 is a zero."""
        index, start, terms = of.flatten().numpy(), 0, []
        for expr, size in sources:
            here = np.where((index >= start) & (index < start + size), index - start, -1)
            start += size
            if (here < 0).all() or expr == const(0):
                continue
            if self.width(expr) == 1:
                here = np.minimum(here, 0)
            if (here >= 0).all() and (self.width(expr) == 1 or np.array_equal(here, np.arange(size))):
                return expr
            terms.append(Term(Index(tuple(here.tolist())), expr))
        return self.nodes.add(Affine(len(index), tuple(terms))) if terms else const(0)
