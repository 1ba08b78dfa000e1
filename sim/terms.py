"""C of the arithmetic that numpy, Amaranth and plain ints share: it is run on terms, which write down what it does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["OR", "Table", "Term", "function", "pointers"]

OR = "or"  # the name of a word of which a function returns the OR over all elements


class Term:
    """An int64 of C, known by its name. Conditions are 0 or 1."""

    def __init__(self, lines: list[str], code: str):
        self._lines, self.code = lines, code

    def _new(self, code: str) -> "Term":
        name = f"v{len(self._lines)}"
        self._lines.append(f"const int64_t {name} = {code};")
        return Term(self._lines, name)

    def _with(self, operator: str, other: Any, swapped: bool = False) -> "Term":
        a, b = (_code(other), self.code) if swapped else (self.code, _code(other))
        return self._new(f"{a} {operator} {b}")

    def select(self, a: Any, b: Any) -> "Term":
        """``a`` where this condition holds, else ``b``."""
        return self._new(f"{self.code} ? {_code(a)} : {_code(b)}")

    def __invert__(self) -> "Term":
        return self._new(f"~{self.code}")

    __hash__ = None  # type: ignore[assignment]


def _binary(operator: str, swapped: bool = False) -> Callable[[Term, Any], Term]:
    return lambda self, other: self._with(operator, other, swapped)


for _name, _operator in {"add": "+", "sub": "-", "mul": "*", "and": "&", "or": "|", "xor": "^", "lshift": "<<",
                         "rshift": ">>", "lt": "<", "gt": ">", "eq": "==", "ne": "!="}.items():
    setattr(Term, f"__{_name}__", _binary(_operator))
    setattr(Term, f"__r{_name}__", _binary(_operator, True))


def _code(x: Any) -> str:
    return x.code if isinstance(x, Term) else f"INT64_C({int(x)})"


class Table:
    """An array of C of two words each: the first in the high half of an int64, the second in the low one."""

    def __init__(self, name: str):
        self._name = name

    def __getitem__(self, place: tuple[Term, int]) -> Term:
        index, half = place
        word = f"{self._name}[{index.code}]"
        return index._new(f"(int64_t)(int32_t){word}" if half else f"{word} >> 32")


def pointers(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, str]:
    """What the arrays of a `function` point at, by name, in the order of its arguments."""
    return {n: kind.removesuffix("/row") if n in outputs else "const " + kind.removesuffix("/row")
            for n, kind in inputs.items()} | dict(outputs)


def function(name: str, meaning: Callable[..., Mapping[str, Any]], inputs: Mapping[str, str],
             outputs: Mapping[str, str], tables: Sequence[int] = ()) -> str:
    """A C function that applies ``meaning`` to every element of (rows, columns).

    ``meaning`` takes inputs by name and tables by slot and returns outputs by name. Kinds are C types; an input's may
    end in ``/row``: one word per row. Arguments are rows, columns, a pointer and a stride of rows in words for every
    input and new output, a pointer per table. An output with the name of an input overwrites it."""
    lines: list[str] = []
    given = {n: Term(lines, f"(int64_t){n}_row[{'0' if kind.endswith('/row') else 'j'}]")
             for n, kind in inputs.items()}
    found = meaning({n: x + 0 for n, x in given.items()}, {slot: Table(f"table{slot}") for slot in tables})
    kinds = pointers(inputs, outputs)
    arguments = [f"{kind}* __restrict {n}, long {n}_stride" for n, kind in kinds.items()]
    arguments += [f"const int64_t* __restrict table{slot}" for slot in tables]
    return "\n".join([
        f'extern "C" int64_t {name}(long rows, long columns, {", ".join(arguments)}) {{',
        "int64_t found = 0;",
        "for (long i = 0; i < rows; ++i) {",
        *(f"{kind}* __restrict {n}_row = {n} + i * {n}_stride;" for n, kind in kinds.items()),
        "for (long j = 0; j < columns; ++j) {",
        *lines,
        *(f"{n}_row[j] = {_code(found[n])};" for n in outputs),
        *([f"found |= {_code(found[OR])};"] if OR in found else []),
        "}", "}", "return found;", "}", ""])
