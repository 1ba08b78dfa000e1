"""Formats and pipelines: the one lossy step, from a float network to the numbers and circuits of the chip."""

from dataclasses import dataclass, field

import numpy as np

from echolith.compiler.calibrate import Samples
from echolith.compiler.differentiate import derivative, substitute
from echolith.compiler.formats import exact, fraction
from echolith.compiler.ir import Expr, Network, const, var
from echolith.compiler.lower import Fixed, Lowering
from echolith.compiler.ops import mul
from echolith.compiler.pipeline import Builder, Pipeline

__all__ = ["Formats", "Quantised", "choose_formats", "fold", "quantise"]


_GROWTH = 4.0


@dataclass(frozen=True)
class Formats:
    """Fraction bits by name: state, input, target, z, hidden, drive, readout, output, delta, and one per vector
    parameter; ``lowered`` are those chosen inside the pipelines."""

    fractions: dict[str, int]
    data_width: int
    lowered: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.fractions[name]


@dataclass(frozen=True)
class Quantised:
    """Pipelines and table contents; ``gradient_fracs`` are the formats of the vector contributions."""

    activate: Pipeline
    cost: Pipeline | None
    step: Pipeline
    drift: Pipeline
    tables: tuple[np.ndarray, ...]
    t_frac: int
    gradient_fracs: tuple[int, ...]
    lowered: dict[str, tuple[int, ...]]


def fold(network: Network) -> tuple[Expr, tuple[str, ...]]:
    """The local potential with frozen uniform parameters as constants, and the names of those left."""
    replacements = {}
    for name in sorted(network.local.variables() - {"q"}):
        value = np.asarray(network.values[name])
        if name not in network.learned and np.ptp(value) == 0:
            replacements[name] = const(float(value.flat[0]))
    local = substitute(network.local, replacements)
    return local, tuple(sorted(local.variables() - {"q"}))


def choose_formats(network: Network, samples: Samples, width: int) -> Formats:
    """Formats from the calibrated ranges; weights that learn get room for growth."""
    local, vectors = fold(network)
    state = max(float(np.abs(samples.q).max(initial=0)), samples.p)
    inputs, targets = exact(samples.inputs, width), exact(samples.targets, width)
    learns = bool(network.learned) and network.cost is not None
    f = {
        "state": min(fraction(_room(state, learns), width, 1.0), width - (4 if learns else 3)),
        "input": inputs.frac, "target": targets.frac,
        "z": min(fraction(_room(float(np.abs(samples.z).max(initial=0)), learns), width, 1.0), width - 3),
        "output": fraction(_outputs(network, samples), width, 1.0),
    }
    scale = max(1.0, float(np.abs(samples.inputs).max(initial=0)))
    for block, affine in (("hidden", network.couplings[0].affine if network.couplings else None),
                          ("readout", network.readout)):
        names = [t for t in affine.terms if t.source != "u"] if affine else []
        f[block] = _weights(network, names if block == "readout" else [t for t in names if t.source == "q"], width, 1.0)
    f["drive"] = _weights(network, [t for t in network.couplings[0].affine.terms if t.source != "q"]
                          if network.couplings else [], width, 1.0 / scale)
    for index, name in enumerate(vectors):
        largest = max(float(np.abs(network.values[name]).max()), 0.25)
        f[f"vector{index}"] = fraction(largest, width, 4.0 if name in network.learned else 1.01)
    if network.cost is not None:
        delta = derivative(network.cost, "y")
        largest = float(np.abs(_broadcast(delta, y=samples.y[:, :, None], target=_spread(samples.targets))).max())
        f["delta"] = fraction(max(largest, 2.0**-8), width - 1)
    return Formats(f, max(inputs.width, targets.width if network.cost is not None else 2))


def _room(largest: float, learns: bool) -> float:
    """Range for states and row sums, which grow in training."""
    return (_GROWTH if learns else 1.5) * largest


def _outputs(network: Network, samples: Samples) -> float:
    """Range of the outputs: they follow the targets, or, where the cost saturates (logits), they keep growing."""
    largest = 4.0 * max(float(np.abs(a).max(initial=0)) for a in (samples.y, samples.targets))
    if network.cost is None:
        return max(largest, 2.0**-8)
    bend = derivative(derivative(network.cost, "y"), "y")
    return max(largest, 2.0**-8 if bend.op == "const" else 16.0)


def _spread(targets: np.ndarray) -> np.ndarray:
    """Extreme targets, against which every output is tried."""
    return np.array([targets.min(initial=0), targets.max(initial=0)])


def _broadcast(expr: Expr, **values: np.ndarray) -> np.ndarray:
    from echolith.compiler.differentiate import evaluate

    return np.asarray(evaluate(expr, values))


def _weights(network: Network, terms: list, width: int, floor: float) -> int:
    """Room for four times the largest weight; learned weights always reach 4 * ``floor``."""
    largest = max((abs(t.scale) * float(np.abs(network.values[t.parameter]).max(initial=0)) for t in terms), default=0)
    learned = any(t.parameter in network.learned for t in terms)
    return fraction(max(4.0 * largest, 3.9 * floor) if learned else max(largest, 2.0**-width) * 1.01, width, 1.0)


def _spread_over(values: np.ndarray, frac: int, width: int) -> np.ndarray:
    """Samples stretched over most of their format: words may come to use all of it, and so must what follows."""
    largest = float(np.abs(values).max(initial=0.0))
    return values * (0.75 * 2.0 ** (width - 1 - frac) / largest) if largest else values


def quantise(network: Network, samples: Samples, formats: Formats, width: int, segments: int, accumulator: int,
             dt: float, learn: bool) -> Quantised:
    """Lower the four pipelines; table slots count through activate, cost, step."""
    lowered: dict[str, tuple[int, ...]] = {}
    tables: list[np.ndarray] = []

    def lowering(name: str, builder: Builder, leaves: dict[str, Fixed], values: dict[str, np.ndarray]) -> Lowering:
        return Lowering(builder, width, segments, leaves, values, len(tables), formats.lowered.get(name, ()))

    def finish(name: str, low: Lowering) -> None:
        lowered[name] = tuple(low.formats)
        tables.extend(low.tables)

    b = Builder(("acc", accumulator), ("drive", width))
    z = b("sat", b("add", b("rnd", b.input("acc"), n=formats["hidden"] + formats["state"] - formats["z"]),
                   b.input("drive")), n=width)
    low = lowering("activate", b, {"z": Fixed(z, formats["z"], True)},
                   {"z": _spread_over(samples.z, formats["z"], width)})
    potential = network.couplings[0].potential if network.couplings else const(0)
    t = low.word(mul(dt, derivative(potential, "z")))
    activate = b.build(t=t.node)
    finish("activate", low)

    cost = None
    if network.readout is not None:
        cost = _cost(network, samples, formats, width, accumulator, learn, lowering, finish)
    step, fracs = _step(network, samples, formats, width, accumulator, dt, learn, t.frac, lowering, finish)
    b = Builder(("p", width))
    low = lowering("drift", b, {"p": Fixed(0, formats["state"], True)}, {"p": np.array([samples.p])})
    d = low(mul(dt, var("p")))
    drift = b.build(d=b("rnd", d.node, n=d.frac - formats["state"]))
    finish("drift", low)
    return Quantised(activate, cost, step, drift, tuple(tables), t.frac, fracs, lowered)


def _cost(network, samples, formats, width, accumulator, learn, lowering, finish) -> Pipeline:
    """acc, target -> y, and the cost derivative clipped to one bit less, so that its negative fits."""
    b = Builder(("acc", accumulator), ("target", formats.data_width))
    y = b("sat", b("rnd", b.input("acc"), n=formats["readout"] + formats["state"] - formats["output"]), n=width)
    if not learn:
        return b.build(y=y)
    leaves = {"y": Fixed(y, formats["output"], True), "target": Fixed(b.input("target"), formats["target"], True)}
    low = lowering("cost", b, leaves, {"y": _spread_over(samples.y, formats["output"], width)[:, :, None],
                                             "target": _spread(samples.targets)})
    value = low(derivative(network.cost, "y"))
    delta = b("sat", b("rnd", value.node, n=value.frac - formats["delta"]), n=width - 1)
    pipeline = b.build(y=y, delta=delta)
    finish("cost", low)
    return pipeline


def _step(network, samples, formats, width, accumulator, dt, learn, t_frac, lowering, finish):
    """acc, q, vector parameters -> the force with one rounding, and d(local)/d(parameter)."""
    local, vectors = fold(network)
    b = Builder(("acc", accumulator), ("q", width), *((f"k{i}", width) for i in range(len(vectors))))
    leaves = {"q": Fixed(b.input("q"), formats["state"], True)}
    values = {"q": _spread_over(samples.q, formats["state"], width)}
    for i, name in enumerate(vectors):
        leaves[name] = Fixed(b.input(f"k{i}"), formats[f"vector{i}"], True)
        values[name] = np.asarray(network.values[name])
    low = lowering("step", b, leaves, values)
    total = Fixed(b.input("acc"), formats["hidden"] + t_frac)
    force = mul(dt, derivative(local, "q"))
    if not (force.op == "const" and force.value == 0):
        total = low.sum("add", total, low(force))
    outputs, fracs = {"force": b("rnd", total.node, n=total.frac - formats["state"])}, []
    for i, name in enumerate(vectors):
        g = low.wide(derivative(local, name)) if learn else Fixed(b("const", n=0), 0)
        outputs[f"g{i}"] = g.node
        fracs.append(g.frac)
    pipeline = b.build(**outputs)
    finish("step", low)
    return pipeline, tuple(fracs)


