"""The drift of every state: q += dt * dT/dp, one element-wise circuit per kinetic energy."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from echolith.compiler.differentiate import derivative, evaluate, names
from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Expr
from echolith.compiler.isa import DRIFT_BITS
from echolith.compiler.lower import Fixed, Lowering
from echolith.compiler.ops import mul
from echolith.compiler.pipeline import Builder, Pipeline

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
    """Lower the drift of every state, for momenta up to ``largest``; table slots count from ``first``. The formats of
    new gradients join ``gradients``."""
    found, kinds, place = Drifts([], [], [], {}), {}, 0
    for state, units in states.items():
        expr = kinetic[state]
        if expr not in kinds:
            kinds[expr] = len(found.pipelines)
            twice = sorted(names(expr) & learned & set(gradients))
            if twice:
                raise CompileError("kinetic: a learned parameter may be in the kinetic or in the potential energy; "
                                   f"give each its own, not {', '.join(twice)} to both")
            used = {v: i for i, v in enumerate(vectors) if v in names(expr)}
            b = Builder(("p", width), *[(f"k{i}", width) for i in used.values()])
            leaves = {"p": Fixed(b.input("p"), fractions["state"], True)}
            leaves |= {v: Fixed(b.input(f"k{i}"), fractions[f"vector{i}"], True) for v, i in used.items()}
            samples = {v: np.asarray(values[v]).reshape(-1) for v in used}
            samples["p"] = np.linspace(-largest, largest, 65)[:, None]
            name = f"drift{kinds[expr]}"
            low = Lowering(b, width, segments, leaves, samples, first + len(found.tables), given.get(name, ()))
            found.pipelines.append(b.build(**_outputs(low, expr, dt, vectors, learned, fractions["state"], gradients)))
            found.tables += low.tables
            found.lowered[name] = tuple(low.formats)
        _join(found.places, Drift(place, units, kinds[expr], bool(names(expr) & learned)), bool(names(expr) - {"p"}))
        place += units
    if len(found.pipelines) > 1 << DRIFT_BITS:
        raise CompileError(f"kinetic: states may have {1 << DRIFT_BITS} different kinetic energies; use fewer, not "
                           f"{len(found.pipelines)}")
    return found


def _outputs(low: Lowering, expr: Expr, dt: float, vectors: tuple[str, ...], learned: frozenset[str], state: int,
             gradients: dict[str, int]) -> dict[str, int]:
    d = low(mul(dt, derivative(expr, "p")))
    outputs = {"d": low.b("rnd", d.node, n=d.frac - state)}
    for i, v in enumerate(vectors):
        if v in names(expr) & learned:
            value = low.wide(derivative(expr, v))
            outputs[f"g{i}"] = low.b("rnd", value.node, n=value.frac - gradients.setdefault(v, value.frac))
    return outputs


def _join(places: list[Drift], new: Drift, own: bool) -> None:
    """Neighbours of one kind are one place, unless they have parameters of ``own``, which count from the first unit."""
    if places and not own and places[-1].kind == new.kind:
        places[-1] = Drift(places[-1].first, places[-1].length + new.length, new.kind)
    else:
        places.append(new)
