"""Echo schemes on the demo's digits: what each costs, and whether its gradient is good enough. Minutes.

``+ and -``: echoes nudged both ways, copy 0 in some batches; what chips do. ``+ and 0``: one nudged echo against copy 0
of every batch, with the gradient doubled. ``alternating``: one nudged echo against the free phase, nudged up for one
sample and down for the next; as copy 0 passes the words of the free phase, this is its gradient, bit for bit. It needs
a sample's exponent before its free phase, to scale row operands. Here it is the right one, which no chip could know: a
best case. ``alternating, last visit``: that of the sample's last visit, which would have to be stored with it; at the
first visit still the right one. One nudge is as large as each of two, about where one-sided gradients are best.

Gates: mean accuracy within a point of float64 BPTT's, and the least cosine of batches of 32, all parameters, untrained
and trained, at least .999. A run that leaves its range, of states or gradients, ends there. Multiplications are those
of the minimal algorithm. The cost at every step is taken as the mean: of the sum, float64 BPTT diverges at this
learning rate.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import echolith as el
from echolith.bench.figure import Choice, Figure, Row, Say
from echolith.bench.store import Store
from echolith.compiler.design import Design
from echolith.compiler.errors import RangeError
from echolith.compiler.reference import bptt
from echolith.compiler.utilisation import copy0, work
from echolith.examples import digits
from echolith.examples.teach import Curve, learn, learn_by_bptt
from echolith.host.arrays import inputs, targets
from echolith.host.session import Session
from echolith.sim.data import words
from echolith.sim.device import IntegerDevice
from echolith.sim.model import IntegerModel
from echolith.sim.simulator import compiler
from echolith.sim.state import Outcome
from echolith.sim.weights import from_values, gradients

__all__ = ["FIGURE", "Alternating", "LastVisit", "OneSided", "least_cosine", "quiet"]

_SEEDS, _BATCHES = 3, 8  # batches whose gradients are compared
_POINT, _COSINE = 0.01, 0.999


class OneSided(IntegerModel):
    """One nudged echo against the un-nudged one."""

    def _up(self, samples: int) -> np.ndarray:
        """Which samples are nudged up."""
        return np.ones(samples, bool)

    def _nudges(self, s, u, target, exponent, kept):
        nudges, up = super()._nudges(s, u, target, exponent, kept), self._up(len(u))
        nudges[:len(up)][~up] = 0
        nudges[len(up):2 * len(up)][up] = 0
        return nudges

    def _respond(self, nudged, out):
        """As far as two nudged echoes would part, so that R keeps nudges of the same size."""
        own = Outcome()
        super()._respond(nudged, own)
        out.response |= own.response << 1

    def learn(self, x, target, checked=True):
        """All but the read-out's own gradient is a contrast, of half the nudge."""
        before, vectors = self.gradients, self.vector_gradients
        self.gradients = {name: g.copy() for name, g in before.items()}
        self.vector_gradients = [g.copy() for g in vectors]
        found = super().learn(x, target, checked)
        self.gradients |= {name: 2 * g - before[name] for name, g in self.gradients.items() if name != "readout"}
        self.vector_gradients = [2 * g - old for g, old in zip(self.vector_gradients, vectors, strict=True)]
        self._wrap_gradients()
        return found


class Alternating(OneSided):
    """Up for one sample, down for the next."""

    def _up(self, samples: int) -> np.ndarray:
        return np.arange(samples) % 2 == 0


class LastVisit(Alternating):
    """With the exponents that samples had when they were last learned."""

    def __init__(self, design, arrays=None):
        super().__init__(design, arrays)
        self._known: dict[bytes, int] = {}

    def _echo(self, x, inputs, target, s, exponent, out, kept):
        names = [sample.tobytes() for sample in x]
        last = np.array([self._known.get(name, e) for name, e in zip(names, exponent, strict=True)])
        self._known |= zip(names, exponent.tolist(), strict=True)
        super()._echo(x, inputs, target, s, last, out, kept)


_SCHEMES: dict[str, type[IntegerModel]] = {
    "+ and -": IntegerModel, "+ and 0": OneSided, "alternating": Alternating, "alternating, last visit": LastVisit}


def _multiplications(design: Design, scheme: str) -> float:
    """A learned sample's."""
    learned, back = work(design).learn, copy0(design)
    return {"+ and -": learned + back / design.dynamics.check, "+ and 0": learned}.get(scheme, learned - back)


def _measure(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    threads, seeds = torch.get_num_threads(), range(choice.seeds or _SEEDS)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for cost_at in ("last", "mean"):
                yield from _rows(cost_at, seeds, say)
    finally:
        torch.set_num_threads(threads)


def _rows(cost_at: str, seeds: range, say: Say) -> Iterator[Row]:
    """The schemes of one cost."""
    references: list[Curve] = []
    for seed in seeds:
        say(f"passes: float64 BPTT, cost at {cost_at}, seed {seed}")
        references.append(learn_by_bptt(digits.large(seed), digits.EPOCHS, quiet, cost_at))
    designs = [_design(seed, cost_at) for seed in seeds]
    for scheme in _SCHEMES:
        runs: list[_Trained] = []
        for seed, design in zip(seeds, designs, strict=True):
            say(f"passes: {scheme}, cost at {cost_at}, seed {seed}")
            runs.append(_run(design, scheme, seed))
        yield _row(scheme, cost_at, designs[0], runs, [r.test[-1] for r in references])


def quiet(epoch: int, loss: float, test: float) -> None:
    pass


def _design(seed: int, cost_at: str) -> Design:
    return el.compile(digits.large(seed), dynamics=el.Leapfrog(digits.DT, digits.SUBSTEPS), lanes=8,
                      rule=el.HamiltonianEcho(cost_at), calibrate=digits.data(cost_at))


@dataclass(frozen=True)
class _Trained:
    """One seed's accuracy after the last epoch, least cosines, and epochs learned before a word left its range."""

    test: float
    untrained: float
    trained: float
    epochs: int


def _run(design: Design, scheme: str, seed: int) -> _Trained:
    device = IntegerDevice(design, compiled=compiler() is not None)
    device.model = _SCHEMES[scheme](design, device.model.arrays)
    device.write(from_values(design, design.values))
    chip = Session(design, device)
    untrained, tests = least_cosine(chip, device, digits.large(seed)), [0.0]
    with suppress(RangeError):
        learn(chip, digits.EPOCHS, lambda epoch, loss, test: tests.append(test))
    return _Trained(tests[-1], untrained, least_cosine(chip, device, digits.large(seed)), len(tests) - 1)


def least_cosine(chip: Session, device: IntegerDevice, net: torch.nn.Module, dissipation: float = 0.0) -> float:
    """Between gradients as `Session.fit` makes them and float64 BPTT by the same weights: the least of some batches."""
    design, cost_at = chip.design, chip.design.dynamics.cost_at or "last"
    net.double().load_state_dict({name: torch.from_numpy(w) for name, w in chip.state_dict().items()})
    found, (xs, ys) = [], digits.data(cost_at)
    for first in range(0, _BATCHES * digits.BATCH, digits.BATCH):
        x, y = (a[first:first + digits.BATCH] for a in (xs, ys))
        device.clear()
        given = words(design, inputs(design, x), targets(design, y, len(y)))
        entries = [np.repeat(w, design.rule.runs, axis=0) for w in given]
        device.run(design.learning(1), *entries)
        a = gradients(design, device.read_gradients(), len(entries[0]))
        b, _ = bptt(net, x, y, digits.DT, digits.SUBSTEPS, cost_at, dissipation=dissipation)
        flat = [np.concatenate([g[name].ravel() for name in sorted(a)]) for g in (a, b)]
        found.append(float(flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])))
    device.clear()
    return min(found)


def _row(scheme: str, cost_at: str, design: Design, runs: list[_Trained], reference: list[float]) -> Row:
    tests, least = [r.test for r in runs], (min(r.untrained for r in runs), min(r.trained for r in runs))
    finished = sum(r.epochs == digits.EPOCHS for r in runs)
    return {
        "scheme": scheme, "cost_at": cost_at, "epochs": digits.EPOCHS, "seeds": len(runs), "finished": finished,
        "test": float(np.mean(tests)), "worst": min(tests),
        "bptt": float(np.mean(reference)), "bptt_worst": min(reference),
        "cosine_untrained": least[0], "cosine_trained": least[1],
        "multiplications": _multiplications(design, scheme) / _multiplications(design, "+ and -"),
        "gates": bool(finished == len(runs) and np.mean(tests) >= np.mean(reference) - _POINT
                      and min(least) >= _COSINE),
    }


def _percent(mean: str, worst: str):
    return lambda r: f"{100 * r[mean]:.1f} % ({100 * r[worst]:.1f})"


FIGURE = Figure(
    title="Echo schemes on digits: test accuracy, mean (worst) of the seeds; least cosine of the gradient to float64",
    keys=("cost_at", "scheme"), tools=("numpy", "torch", "scikit-learn"), measure=_measure,
    columns={
        "scheme": lambda r: r["scheme"], "cost at": lambda r: r["cost_at"], "epochs": lambda r: r["epochs"],
        "finished": lambda r: f"{r['finished']} of {r['seeds']}",
        "chip": _percent("test", "worst"), "BPTT": _percent("bptt", "bptt_worst"),
        "cosine, untrained": lambda r: f"{r['cosine_untrained']:.6f}",
        "trained": lambda r: f"{r['cosine_trained']:.6f}",
        "MACs": lambda r: f"{r['multiplications']:.3f}", "within both gates": lambda r: "yes" if r["gates"] else "NO",
    },
)
