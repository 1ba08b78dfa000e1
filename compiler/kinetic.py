"""The drift of every state: q += dt * dT/dp, one element-wise circuit per kinetic energy."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from echolith.compiler.differentiate import derivative, evaluate, names
from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Expr
from echolith.compiler.isa import DRIFT_BITS
from echolith.compiler.lower import Fixed, Lowering
from echolith.compiler.ops import mul
from echolith.compiler.pipeline import Builder, Pipeline
from echolith.compiler.resolution import Output, furthest, inaccuracy, spread

__all__ = ["Drift", "Drifts", "drifts", "velocity"]


@dataclass(frozen=True)
class Drift:
    """Neighbouring elements of the states that drift through pipeline ``kind``; ``mass``: it has gradients to keep."""

    first: int
    length: int
    kind: int = 0
    mass: bool = False


@dataclass
class Drifts:
    """Pipelines p, k0... -> d, g0..., with their tables, and which elements go through which."""

    pipelines: list[Pipeline]
    tables: list[np.ndarray]
    places: list[Drift]
    lowered: dict[str, tuple[int, ...]]


def velocity(kinetic: Mapping[str, Expr], values: Mapping[str, np.ndarray], p: Mapping[str, np.ndarray]
             ) -> dict[str, np.ndarray]:
    """dT/dp by state, (samples, units) each."""
    flat = {name: np.asarray(v).reshape(-1) for name, v in values.items()}
    return {s: np.broadcast_to(evaluate(_slope(kinetic[s]), {**flat, "p": x}), x.shape) for s, x in p.items()}


@functools.lru_cache
def _slope(kinetic: Expr) -> Expr:
    return derivative(kinetic, "p")


def drifts(kinetic: Mapping[str, Expr], states: Mapping[str, int], values: Mapping[str, np.ndarray], largest: float,
           vectors: tuple[str, ...], learned: frozenset[str], fractions: Mapping[str, int], gradients: dict[str, int],
           *, dt: float, width: int, segments: int, first: int, given: Mapping[str, tuple[int, ...]]) -> Drifts:
    """Lower the drift of every state, for calibrated momenta up to ``largest`` and as far beyond as precision allows;
    table slots count from ``first``. The formats of new gradients join ``gradients``."""
    found, kinds, place = Drifts([], [], [], {}), {}, 0
    for state, units in states.items():
        expr = kinetic[state]
        if expr not in kinds:
            kinds[expr] = len(found.pipelines)
            twice = sorted(names(expr) & learned & set(gradients))
            if twice:
                raise CompileError("kinetic: a learned parameter may be in the kinetic or in the potential energy; "
                                   f"give each its own, not {', '.join(twice)} to both")
            used = {i: v for i, v in enumerate(vectors) if v in names(expr)}
            name = f"drift{kinds[expr]}"
            circuit = _Circuit(expr, used, learned, {v: np.asarray(values[v]).reshape(-1) for v in used.values()},
                               largest, fractions, dt, width, segments, first + len(found.tables), given.get(name, ()))
            pipeline, low, formats = circuit.lower(np.inf if name in given else furthest(circuit.error))
            found.pipelines.append(pipeline)
            found.tables += low.tables
            found.lowered[name] = tuple(low.formats)
            gradients |= formats
        _join(found.places, Drift(place, units, kinds[expr], bool(names(expr) & learned)), bool(names(expr) - {"p"}))
        place += units
    if len(found.pipelines) > 1 << DRIFT_BITS:
        raise CompileError(f"kinetic: states may have {1 << DRIFT_BITS} different kinetic energies; use fewer, not "
                           f"{len(found.pipelines)}")
    return found


@dataclass(frozen=True)
class _Circuit:
    """The drift of one kinetic energy, yet to be lowered, with the vectors that it has, by number."""

    expr: Expr
    vectors: Mapping[int, str]
    learned: frozenset[str]
    values: Mapping[str, np.ndarray]
    largest: float
    fractions: Mapping[str, int]
    dt: float
    width: int
    segments: int
    first: int
    given: Sequence[int]

    @property
    def momenta(self) -> np.ndarray:
        return np.linspace(-self.largest, self.largest, 65)[:, None]

    @property
    def operands(self) -> dict[str, tuple[str, int]]:
        """What the inputs are and their fraction bits."""
        return {"p": ("p", self.fractions["state"])} | {f"k{i}": (v, self.fractions[f"vector{i}"])
                                                        for i, v in self.vectors.items()}

    @property
    def wanted(self) -> dict[str, Expr]:
        """What the outputs stand for."""
        return {"d": mul(self.dt, derivative(self.expr, "p"))} | {
            f"g{i}": derivative(self.expr, v) for i, v in self.vectors.items() if v in self.learned}

    def lower(self, reach: float) -> tuple[Pipeline, Lowering, dict[str, int]]:
        """The circuit for momenta ``reach`` times the calibrated ones, and fraction bits of its gradients."""
        b = Builder(*((name, self.width) for name in self.operands))
        leaves = {v: Fixed(b.input(name), frac, True) for name, (v, frac) in self.operands.items()}
        samples = {**self.values, "p": spread(self.momenta, self.fractions["state"], self.width, reach)}
        low = Lowering(b, self.width, self.segments, leaves, samples, self.first, self.given)
        outputs, formats = {}, {}
        for name, expr in self.wanted.items():
            value = low(expr) if name == "d" else low.wide(expr)
            frac = self.fractions["state"] if name == "d" else value.frac
            outputs[name] = b("rnd", value.node, n=value.frac - frac)
            if name != "d":
                formats[self.vectors[int(name[1:])]] = frac
        return b.build(**outputs), low, formats

    def error(self, reach: float) -> float:
        """`inaccuracy` on calibrated momenta; of gradients, echoes' differences count."""
        pipeline, low, formats = self.lower(reach)
        state = self.fractions["state"]
        wanted = {name: Output((expr,), state, 2.0**-state) if name == "d" else
                  Output((expr,), formats[self.vectors[int(name[1:])]], 0.0, fine=True)
                  for name, expr in self.wanted.items()}
        return inaccuracy(pipeline, wanted, [np.zeros(0, np.int64)] * self.first + low.tables, self.operands,
                          {**self.values, "p": self.momenta}, self.width, self.segments)


def _join(places: list[Drift], new: Drift, own: bool) -> None:
    """Neighbours of one kind are one place, unless they have parameters of ``own``, which count from the first unit."""
    if places and not own and places[-1].kind == new.kind:
        places[-1] = Drift(places[-1].first, places[-1].length + new.length, new.kind)
    else:
        places.append(new)
