"""Every rule on the demo's digits, from on-chip updates alone, beside float64 backpropagation of the same network.

Rows of pixels are input rows. The cosine is the least between batches of 32 as `Session.fit` learns them and float64
BPTT by the same weights. A pass is one run through a sample's steps, in either direction; copy 0 is not counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import echolith as el
from echolith.bench.figure import Choice, Figure, Row, Say
from echolith.bench.passes import least_cosine, quiet
from echolith.bench.store import Store
from echolith.compiler.design import Design
from echolith.compiler.estimate import estimate
from echolith.compiler.learning import AnyRule
from echolith.examples import digits
from echolith.examples.teach import learn, learn_by_bptt
from echolith.host.session import Session
from echolith.sim.device import IntegerDevice
from echolith.sim.simulator import compiler
from echolith.sim.weights import from_values

__all__ = ["FIGURE", "RULES", "trained"]

_SEEDS, _LANES, _POINT, _COSINE = 3, 8, 0.01, 0.999


@dataclass(frozen=True)
class _Case:
    rule: AnyRule
    passes: int


RULES = {
    "HamiltonianEcho": _Case(el.HamiltonianEcho(), 3),
    "HamiltonianEcho, mean of all steps": _Case(el.HamiltonianEcho("mean"), 3),
    "LagrangianEcho": _Case(el.LagrangianEcho(), 3),
    "LagrangianEcho, momenta decay": _Case(el.LagrangianEcho(dissipation=0.5), 3),
    "EchoBackpropagation": _Case(el.EchoBackpropagation(), 4),
}


@dataclass(frozen=True)
class Trained:
    """Test accuracy after the last epoch and least cosines before the first and then."""

    design: Design
    test: float
    untrained: float
    last: float


def trained(rule: AnyRule, seed: int, epochs: int = digits.EPOCHS) -> Trained:
    """One network learned in the integer model."""
    design = el.compile(digits.large(seed), dynamics=el.Leapfrog(digits.DT, digits.SUBSTEPS), lanes=_LANES, rule=rule,
                        calibrate=digits.data(rule.cost_at))
    device = IntegerDevice(design, compiled=compiler() is not None)
    device.write(from_values(design, design.values))
    chip = Session(design, device)
    rate = _dissipation(rule)
    untrained = least_cosine(chip, device, digits.large(seed), rate)
    curve = learn(chip, epochs, quiet)
    return Trained(design, curve.test[-1], untrained, least_cosine(chip, device, digits.large(seed), rate))


def _measure(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    threads, seeds = torch.get_num_threads(), range(choice.seeds or _SEEDS)
    torch.set_num_threads(1)
    references: dict[tuple[str, float], list[float]] = {}
    try:
        with threadpool_limits(1):
            for name, case in RULES.items():
                about = case.rule.cost_at, _dissipation(case.rule)
                if about not in references:
                    references[about] = [_reference(seed, *about, say) for seed in seeds]
                say(f"rules: {name}")
                yield _row(name, case, [trained(case.rule, seed) for seed in seeds], references[about])
    finally:
        torch.set_num_threads(threads)


def _dissipation(rule: AnyRule) -> float:
    return rule.dissipation if isinstance(rule, el.LagrangianEcho) else 0.0


def _reference(seed: int, cost_at: str, dissipation: float, say: Say) -> float:
    say(f"rules: float64 BPTT, cost at {cost_at}, dissipation {dissipation:g}, seed {seed}")
    return learn_by_bptt(digits.large(seed), digits.EPOCHS, quiet, cost_at, dissipation).test[-1]


def _row(name: str, case: _Case, runs: list[Trained], reference: list[float]) -> Row:
    found, design = estimate(runs[0].design), runs[0].design
    tests, least = [r.test for r in runs], (min(r.untrained for r in runs), min(r.last for r in runs))
    return {
        "rule": name, "seeds": len(runs), "epochs": digits.EPOCHS, "test": float(np.mean(tests)), "worst": min(tests),
        "bptt": float(np.mean(reference)), "cosine_untrained": least[0], "cosine_trained": least[1],
        "passes": case.passes, "lanes": _LANES, "cycles": found["cycles"]["learn_sample"],
        "state_bits": 2 * design.units * design.hardware.width, "utilisation": found["mac_utilisation"],
        "ok": bool(np.mean(tests) >= np.mean(reference) - _POINT and min(least) >= _COSINE),
    }


FIGURE = Figure(
    title=f"Rules on digits, {_LANES} lanes: test accuracy, mean (worst) of the seeds; least cosine of the gradient to "
          "float64",
    keys=("rule",), tools=("numpy", "torch", "scikit-learn"), measure=_measure,
    columns={
        "rule": lambda r: r["rule"], "chip": lambda r: f"{100 * r['test']:.1f} % ({100 * r['worst']:.1f})",
        "backprop": lambda r: f"{100 * r['bptt']:.1f} %", "cosine, untrained": lambda r: f"{r['cosine_untrained']:.6f}",
        "trained": lambda r: f"{r['cosine_trained']:.6f}", "passes": lambda r: str(r["passes"]),
        "cycles a sample": lambda r: f"{r['cycles']:,.0f}", "state bits a copy": lambda r: f"{r['state_bits']:,}",
        "useful MACs": lambda r: f"{r['utilisation']:.3f}",
        "within a point and .999": lambda r: "yes" if r["ok"] else "NO",
    },
)
