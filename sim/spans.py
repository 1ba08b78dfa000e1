"""What every tensor of a design holds on some samples against what its format can hold. float64, numpy only."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from echolith.compiler.costs import slope
from echolith.compiler.design import Design
from echolith.compiler.differentiate import derivative
from echolith.compiler.formats import Format
from echolith.compiler.ir import Expr
from echolith.compiler.isa import Opcode
from echolith.compiler.ops import mul
from echolith.compiler.pipeline import Pipeline
from echolith.compiler.resolution import Output, inaccuracy
from echolith.compiler.steps import OUTPUT
from echolith.sim import adjoint
from echolith.sim.weights import from_values

__all__ = ["Span", "affordable", "reach", "slope_reach", "spans"]

_WORK = 1 << 25  # products of weights and states, each way, that one run may take
_STEPS = 64  # integrator steps looked at
_FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0, 8.0)
_NEAR = 1 / 32  # times the range seen, where nothing clips: errors there are those of chords and roundings
_CLIPPED = 100.0  # an inaccuracy of one sample that only clipping explains: one percent of the range

Values = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Span:
    """Minimum, quartiles and maximum seen, and the same of the magnitudes that are not zero; the format, spelled and
    as its last place and the first magnitude beyond it."""

    name: str
    seen: tuple[float, ...]
    magnitudes: tuple[float, ...]
    format: str
    step: float
    limit: float

    @property
    def margin(self) -> float:
        """Bits between the largest magnitude seen and the format's limit; negative if it does not fit."""
        largest = max(abs(self.seen[0]), abs(self.seen[4]))
        return float(np.log2(self.limit / largest)) if largest else float("inf")


def affordable(design: Design, most: int) -> int:
    """Samples to measure on: ``most``, fewer of large networks, at least two."""
    d = design.dynamics
    work = d.steps * d.substeps * sum(b.rows * b.columns for b in design.blocks)
    return max(2, min(most, _WORK // max(work, 1)))


def spans(design: Design, values: Values, x: np.ndarray, y: np.ndarray | None) -> list[Span]:
    """Of data, states, sums, vectors, outputs, weights, by their names in `Design.precision`.

    ``x`` is (samples, rows, inputs), ``y`` (samples, read-outs, outputs)."""
    hw, found = design.hardware, []
    for name, array in _tensors(design, values, x, y):
        key = "state" if name in design.states or name == "momenta" else name
        form = Format(hw.word(key), design.fractions[key])
        found.append(Span(name, _five(array), _five(np.abs(array[array != 0])), str(form), 2.0**-form.frac, form.limit))
    return found


def _five(array: np.ndarray) -> tuple[float, ...]:
    """Minimum, quartiles, maximum; zeros of nothing."""
    return tuple(np.quantile(array, (0, 0.25, 0.5, 0.75, 1)).tolist()) if array.size else (0.0,) * 5


def _tensors(design: Design, values: Values, x: np.ndarray, y: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
    run, seen = adjoint.forward(design, values, x), trajectory(design, values, x)
    yield "input", x
    yield from ((s, seen[s]) for s in design.states)
    yield "momenta", run.p
    others = (*design.states, "u", *design.strengths)
    yield from ((name, v) for name, v in seen.items() if name in design.fractions and name not in others)
    if design.hardware.cost is not None:
        outputs = adjoint.outputs(design, values, x)
        yield "output", outputs
        if design.cost is not None and y is not None:
            yield "target", y[~np.isnan(y)]
            yield "delta", adjoint.cost_slope(design.cost, outputs.reshape(y.shape), y)
    words = from_values(design, values)
    for block in design.blocks:
        yield block.name, words[block.name] * 2.0 ** -(design.fractions[block.name] + design.hardware.width)
    for i, vector in enumerate(design.vectors):
        yield f"vector{i}", words[f"vector{i}"] * 2.0**-vector.fraction


def trajectory(design: Design, values: Values, x: np.ndarray) -> dict[str, np.ndarray]:
    """All vectors and sums, (samples of some steps, size), and all parameters, flat."""
    q = adjoint.forward(design, values, x).q
    steps = np.unique(np.linspace(0, len(q) - 1, _STEPS).astype(int))
    u = np.concatenate([x[:, step // design.dynamics.substeps] for step in steps])
    return adjoint.kicks(design, values, np.concatenate(q[steps]), u)[0]


def reach(design: Design, values: Values, x: np.ndarray) -> dict[str, float]:
    """Times the range seen up to which each element-wise circuit computes its function; beyond, it clips.

    By the vector that it makes, the state that it kicks or moves, or the mass whose gradient it makes; infinite where
    nothing clips within eight times, 0 where it does in the range seen."""
    env, found = trajectory(design, values, x), {}
    for made, sweep in zip(design.passes, design.sweeps, strict=True):
        if made.opcode == Opcode.OUTER or made.expr is None or made.contrast or not (made.result or made.state):
            continue
        units = design.hardware.activate if made.opcode == Opcode.FORWARD else design.hardware.step
        held = _held(design, made, sweep.block, units[sweep.kind], env)
        name = made.result or f"kick of {made.state}"
        found[name] = min(found.get(name, np.inf), held)
    return found | _drifts(design, values, x)


def slope_reach(design: Design, values: Values, x: np.ndarray, y: np.ndarray) -> float:
    """As `reach`, of the circuit of dcost/dy, if it is one of outputs and targets alone; of others infinite."""
    circuit, f, hw = design.hardware.cost, design.fractions, design.hardware
    if circuit is None or design.cost is None or not hw.learn or "drive" in dict(circuit.inputs):
        return np.inf
    given, places = ~np.isnan(y), {"acc": ("y", f["readout"] + f[OUTPUT if design.reads else "state"]),
                                   "target": ("target", f["target"])}
    out, target = adjoint.outputs(design, values, x).reshape(y.shape)[given], y[given]
    wanted = {"delta": Output((slope(design.cost),), f["delta"], 2.0 ** -f["delta"])}

    def error(factor: float) -> float:
        env = {"y": factor * out, "target": target}
        return inaccuracy(circuit, wanted, design.tables, places, env, hw.width, hw.segments, _largest)

    return _reached(error)


def _held(design: Design, made, block: str, pipeline: Pipeline, env: Values) -> float:
    f, hw = design.fractions, design.hardware
    operands = {name: (vector, f[made.source(vector)]) for name, vector in (("q", made.q), ("r", made.r)) if vector}
    if made.acc:
        operands["acc"] = (made.acc, f[block] + f[made.source(made.x)])
    moved = {vector for vector, _ in operands.values()}
    operands |= {f"k{i}": (v.parameter, f[f"vector{i}"]) for i, v in enumerate(design.vectors)}
    operands = {name: operands[name] for name, _ in pipeline.inputs if name in operands}
    frac = f[made.result or "state"]
    wanted = {pipeline.outputs[0][0]: Output((made.expr,), frac, 2.0**-frac)}
    words = {name: place for name, place in operands.items() if name != "acc"}

    def error(factor: float) -> float:
        scaled = {name: v * factor if name in moved else v for name, v in env.items()}
        if not _fit(words, scaled, hw.width):
            return np.inf
        return inaccuracy(pipeline, wanted, design.tables, operands, scaled, hw.width, hw.segments, _largest)

    return _reached(error)


def _reached(error: Callable[[float], float]) -> float:
    """Times the range seen before the largest error is one that only clipping explains."""
    most = max(_CLIPPED, 2.0 * error(_NEAR))
    held = zip((0.0, *_FACTORS), _FACTORS, strict=False)
    return next((before for before, factor in held if error(factor) > most), np.inf)


def _largest(errors: np.ndarray) -> float:
    """Few samples clip at first."""
    return float(np.abs(errors).max(initial=0.0))


def _fit(operands: Mapping[str, tuple[str, int]], values: Values, width: int) -> bool:
    return all(np.abs(values[name]).max(initial=0.0) * 2.0**frac < 2.0 ** (width - 1)
               for name, frac in operands.values())


def _drifts(design: Design, values: Values, x: np.ndarray) -> dict[str, float]:
    """`reach` of the circuits that move states by their momenta."""
    p, found, first = np.concatenate(adjoint.forward(design, values, x).p[-_STEPS:]), {}, 0
    env = {name: np.asarray(v).reshape(-1) for name, v in values.items()}
    for state, units in design.states.items():
        kind = next(place.kind for place in design.drifts if place.first <= first < place.first + place.length)
        mine = {**env, "p": p[:, first:first + units]}
        found |= _drift(design, state, design.hardware.drift[kind], mine)
        first += units
    return found


def _drift(design: Design, state: str, pipeline: Pipeline, env: Values) -> dict[str, float]:
    f, hw, expr, found = design.fractions, design.hardware, design.kinetic[state], {}
    operands = {name: ("p", f["state"]) if name == "p" else (design.vectors[int(name[1:])].parameter,
                                                             f[f"vector{name[1:]}"]) for name, _ in pipeline.inputs}

    def error(name: str, made: Expr, frac: int, factor: float) -> float:
        scaled = {**env, "p": factor * env["p"]}
        if not _fit(operands, scaled, hw.width):
            return np.inf
        wanted = {name: Output((made,), frac, 2.0**-frac)}
        return inaccuracy(pipeline, wanted, design.tables, operands, scaled, hw.width, hw.segments, _largest)

    for name, _ in pipeline.outputs:
        parameter = None if name == "d" else design.vectors[int(name[1:])].parameter
        made = derivative(expr, parameter) if parameter else mul(design.dynamics.dt, derivative(expr, "p"))
        # Only its own circuit knows where a gradient's point is.
        frac = min(range(2 * hw.width), key=lambda n: error(name, made, n, _NEAR)) if parameter else f["state"]
        key = f"the gradient of {parameter}" if parameter else f"drift of {state}"
        found[key] = _reached(lambda factor, name=name, made=made, frac=frac: error(name, made, frac, factor))
    return found
