"""The integer model's arithmetic as C of its own design, compiled once: the same words in one pass over memory."""

import ctypes
import hashlib
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import ResourceError
from echolith.compiler.pipeline import Pipeline, evaluate
from echolith.sim import arith
from echolith.sim.arrays import Array, Arrays
from echolith.sim.products import ACC, TEXT, Sums, from_factors, place
from echolith.sim.simulator import cache, compiler
from echolith.sim.steps import Circuits, Step, plain
from echolith.sim.terms import OR, function, pointers

if TYPE_CHECKING:
    from echolith.sim.force import Force

__all__ = ["Compiled"]

# Sums wrap and negative numbers are shifted as numpy does it; arrays never overlap.
_FLAGS = ("-x", "c++", "-O3", "-march=native", "-fwrapv", "-shared", "-fPIC")
_SHAPE, _MATRIX = [ctypes.c_long] * 2, [ctypes.c_void_p, ctypes.c_long]
_DTYPES = {"double": np.dtype(np.float64), "int64_t": np.dtype(np.int64)}


class Compiled(Arrays):
    """`Arrays`, word for word, but faster.

    Raises
    ------
    ResourceError
        Without a C++ compiler.
    """

    def __init__(self, design: Design):
        super().__init__(design)
        hw, self._loops = self.hw, _Loops(design.tables)
        groups = (hw.activate, (hw.cost,) if hw.cost else (), hw.step, hw.drift)
        self._runs = {id(p): self._run(p) for group in groups for p in group}
        self._drifts = {(id(p), back): self._drift(p, back) for p in hw.drift for back in (False, True)}
        self._kicks = {(id(p), back): self._kick(p, back) for p in hw.step for back in (False, True)}
        self._pushes = [self._push(back) for back in (False, True)]
        self._kept = self._loops.add(lambda x, _: {"y": arith.sat(arith.rnd(x["acc"], hw.drive_shift), hw.width)},
                                     {"acc": "double"}, {"y": "int64_t"})
        scaled = arith.even if hw.stacked else arith.shr
        self._scaled = self._loops.add(lambda x, _: {"y": scaled(x["x"], x["scale"]) * x["sign"]},
                                       {"x": "double", "scale": "int64_t/row", "sign": "int64_t/row"}, {"y": "double"})
        self._spread = self._loops.add(lambda x, _: {OR: arith.abs_bits(x["a"] - x["b"])},
                                       {"a": "int64_t", "b": "int64_t"}, {})
        self._steps = self._whole(design) if plain(design) else []
        self._loops.build()

    def _whole(self, design: Design) -> list[Step]:
        """Steps forward and back."""
        hw, add = self.hw, self._loops.add
        wrapped = add(lambda x, _: {"w": arith.wrap(x["w"], hw.width),
                                    "left": x["left"] | arith.outside(x["w"], hw.width)},
                      {"w": "int64_t", "left": "int64_t"}, {"w": "int64_t", "left": "int64_t"})
        narrowed = hw.packed and add(lambda x, _: {"y": arith.operand(x["x"], hw.width, hw.packed.operand)},
                                     {"x": "double"}, {"y": "double"})
        summed = add(lambda x, _: {"sum": x["sum"] + arith.shr(x["x"], x["scale"]) * x["sign"]},
                     {"x": "int64_t", "scale": "int64_t/row", "sign": "int64_t/row", "sum": "int64_t"},
                     {"sum": "int64_t"})
        circuits = Circuits(self._runs, self._kicks, self._drifts, self._pushes, self._scaled, summed, wrapped,
                            narrowed)
        return [self._loops.step(design, circuits, back) for back in (False, True)]

    def _run(self, pipeline: Pipeline) -> "_Loop":
        outputs = {name: "double" if name == "t" else "int64_t" for name, _ in pipeline.outputs}  # t goes to products
        return self._loops.add(lambda x, tables: self._evaluated(pipeline, x, tables), _kinds(pipeline), outputs,
                               pipeline.tables())

    def _drift(self, pipeline: Pipeline, back: bool) -> "_Loop":
        return self._moving(pipeline, "d", "q", {}, lambda x, d: x["q"] - d if back else x["q"] + d)

    def _kick(self, pipeline: Pipeline, back: bool) -> "_Loop":
        return self._moving(pipeline, "force", "p", {"nudge": "int64_t"},
                            lambda x, force: arith.move(x["p"], force, x["nudge"], back))

    def _moving(self, pipeline: Pipeline, by: str, name: str, more: dict[str, str], move: Callable[..., Any]
                ) -> "_Loop":
        """What ``move`` makes of the words ``name`` and of the output ``by``, in place of them; all other outputs."""
        def meaning(x: Mapping[str, Any], tables: Any) -> dict[str, Any]:
            found = self._evaluated(pipeline, x, tables)
            return found | self._flagged(name, move(x, found.pop(by)))

        others = {n: "int64_t" for n, _ in pipeline.outputs if n != by}
        return self._loops.add(meaning, _kinds(pipeline) | {name: "int64_t"} | more, others | {name: "int64_t"},
                               pipeline.tables())

    def _push(self, back: bool) -> "_Loop":
        return self._loops.add(lambda x, _: self._flagged("p", arith.move(x["p"], 0, x["nudge"], back)),
                               {"p": "int64_t", "nudge": "int64_t"}, {"p": "int64_t"})

    def _evaluated(self, pipeline: Pipeline, x: Mapping[str, Any], tables: Any) -> dict[str, Any]:
        return evaluate(pipeline, x, tables, self.hw.width, self.hw.segments)

    def _flagged(self, name: str, word: Any) -> dict[str, Any]:
        return {name: word, OR: arith.outside(word, self.hw.width)}

    # -- a model's -------------------------------------------------------------------------------------------------

    def exact(self, a: Array, b: Array) -> Array:
        self.check(a, b)
        return self._loops.product(a, b)

    def sums(self, a: Array, b: Array) -> Any:
        self.check(a, b)
        return Sums(np.asarray(a, np.float64), b, self._loops.product)

    def run(self, pipeline: Pipeline, inputs: Mapping[str, Any]) -> dict[str, Array]:
        return self._runs[id(pipeline)](inputs)[0]

    def kept(self, acc: Array) -> Array:
        return self._kept({"acc": acc})[0]["y"]

    def rows(self, words: Array, scale: Array, sign: Array) -> Array:
        return self._scaled({"x": words, "scale": scale, "sign": sign})[0]["y"]

    def spread(self, a: Array, b: Array) -> int:
        return self._spread({"a": a, "b": b})[1]

    def step(self, force: "Force") -> bool:
        return bool(self._steps) and self._steps[force.reverse](force)

    def push(self, p: Array, nudge: Array | int, reverse: bool) -> Array | None:
        return self._wrap(p) if self._pushes[reverse]({"p": p, "nudge": nudge})[1] else None

    def kick(self, pipeline: Pipeline, p: Array, inputs: Mapping[str, Any], nudge: Array | int, reverse: bool
             ) -> tuple[dict[str, Array], Array | None]:
        found, left = self._kicks[id(pipeline), reverse]({**inputs, "p": p, "nudge": nudge})
        return found, self._wrap(p) if left else None

    def drift(self, pipeline: Pipeline, q: Array, inputs: Mapping[str, Any], reverse: bool
              ) -> tuple[dict[str, Array], Array | None]:
        found, left = self._drifts[id(pipeline), reverse]({**inputs, "q": q})
        return found, self._wrap(q) if left else None


def _kinds(pipeline: Pipeline) -> dict[str, str]:
    """Sums come from `Arrays.sums`."""
    return {name: "double" if name == "acc" else "int64_t" for name, _ in pipeline.inputs}


class _Loop:
    """One function of the library, on what broadcasts to (samples, elements), one of them an array of all samples. What
    overwrites an input is given as an array of that shape."""

    def __init__(self, name: str, inputs: Mapping[str, str], outputs: Mapping[str, str], tables: Mapping[int, Array]):
        self.name, self.arrays, self.slots = name, list(inputs | outputs), list(tables)
        self._inputs = [(name, _DTYPES[kind.removesuffix("/row")], kind.endswith("/row"))
                        for name, kind in inputs.items()]
        self._new = [(name, _DTYPES[kind]) for name, kind in outputs.items() if name not in inputs]
        self._tables = [table.ctypes.data for table in tables.values()]
        self._call: Any = None  # set when the library is there
        self._call_of: Any = None  # the same from the factors of its sums

    def bind(self, library: ctypes.CDLL) -> None:
        """To its functions."""
        count, tables = len(self._inputs) + len(self._new), [ctypes.c_void_p] * len(self._tables)
        self._call = _function(library, self.name, [*_SHAPE, *_MATRIX * count, *tables])
        if ACC in self.arrays:
            self._call_of = _function(library, f"{self.name}_of",
                                      [*_SHAPE, ctypes.c_long, *_MATRIX * (count + 1), *tables])

    def __call__(self, given: Mapping[str, Any]) -> tuple[dict[str, Array], int]:
        """Outputs that are new, and the `OR`."""
        arrays, factors, shape = [], [], (1, 1)
        for name, dtype, row in self._inputs:
            array = given[name]
            if type(array) is Sums:
                factors, shape = array.places(), array.shape
                continue
            array = np.asarray(array, dtype)
            arrays.append((array, row))
            if array.shape != shape and array.ndim and not (row or factors):
                shape = np.broadcast_shapes(array.shape, shape) if array.ndim < 2 or 1 in array.shape else array.shape
        fitted = [_fit(array, (shape[0], 1) if row else shape) for array, row in arrays]
        found = {name: np.empty(shape, dtype) for name, dtype in self._new}
        places = [part for array in (*fitted, *found.values()) for part in place(array)]
        if factors:
            return found, self._call_of(*shape, *factors, *places, *self._tables)
        return found, self._call(*shape, *places, *self._tables)


def _function(library: ctypes.CDLL, name: str, arguments: Sequence[Any]) -> Any:
    call = getattr(library, name)
    call.argtypes, call.restype = arguments, ctypes.c_int64
    return call


def _fit(array: Array, shape: tuple[int, int]) -> Array:
    """Whose elements of a row are neighbours, one row for all of them if they are alike; the same memory if it can."""
    if array.ndim == 0:
        return np.full(shape[1], array)
    if array.shape != shape:
        array = np.broadcast_to(array, shape[1:] if array.ndim == 1 else shape)
    return array if array.strides[-1] == 8 or shape[1] == 1 else np.ascontiguousarray(array)


def _halves(table: Array) -> Array:
    """(words, 2) as `terms.Table` has them."""
    assert np.abs(table).max(initial=0) < 1 << 31
    return (table[:, 0] << 32) + (table[:, 1] & (1 << 32) - 1)


class _Loops:
    """A library of loops, built once and cached."""

    def __init__(self, tables: Sequence[Array]):
        self._tables = [_halves(np.asarray(table, np.int64)) for table in tables]
        self._loops: list[_Loop] = []
        self._steps: list[Step] = []
        self._text = ["#include <cstdint>", TEXT]
        self._product: Any = None

    def add(self, meaning: Callable[..., Mapping[str, Any]], inputs: Mapping[str, str], outputs: Mapping[str, str],
            tables: Sequence[int] = ()) -> _Loop:
        """See `terms.function`; ``tables`` are the slots used."""
        slots = sorted(set(tables))
        name = f"loop{len(self._loops)}"
        self._text.append(function(name, meaning, inputs, outputs, slots))
        if ACC in inputs:
            self._text.append(from_factors(name, pointers(inputs, outputs), slots))
        self._loops.append(_Loop(name, inputs, outputs, {slot: self._tables[slot] for slot in slots}))
        return self._loops[-1]

    def step(self, design: Design, circuits: Circuits, back: bool) -> Step:
        """Of functions that were added before."""
        addresses = {slot: table.ctypes.data for slot, table in enumerate(self._tables)}
        self._steps.append(Step(design, circuits, back, f"step{len(self._steps)}", addresses))
        self._text.append(self._steps[-1].text)
        return self._steps[-1]

    def build(self) -> None:
        library = ctypes.CDLL(str(_library("\n".join(self._text))))
        self._product = library.product
        self._product.argtypes = [*_SHAPE, ctypes.c_long, *_MATRIX, ctypes.c_long, *_MATRIX, *_MATRIX]
        self._product.restype = None
        for loop in self._loops:
            loop.bind(library)
        for step in self._steps:
            step.bind(_function(library, step.name, [ctypes.c_void_p]))

    def product(self, a: Array, b: Array) -> Array:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        b = b if b.strides[1] == 8 else np.ascontiguousarray(b)
        found = np.empty((len(a), b.shape[1]))
        self._product(*found.shape, a.shape[1], *place(a), a.strides[1] // 8, *place(b), *place(found))
        return found


def _library(text: str) -> Path:
    """The shared library, compiled if no equal one of this machine is cached."""
    tool = compiler()
    if tool is None:
        raise ResourceError("the compiled integer model needs a C++ compiler, and none was found: sudo apt install "
                            "g++, or open int:, not int:compiled")
    key = hashlib.blake2b("\n".join((tool, platform.node(), *_FLAGS, text)).encode(), digest_size=12).hexdigest()
    target = cache() / "model" / f"{key}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        work = target.with_suffix(f".{os.getpid()}")
        done = subprocess.run([tool, *_FLAGS, "-", "-o", str(work)], input=text, capture_output=True, text=True)
        if done.returncode:
            raise ResourceError(f"the C++ compiler refused the integer model: {done.stderr[-2000:]}")
        work.replace(target)
    return target
