"""Time series, classified by a stack of the published kind: blocks of a normalisation, oscillators, a readout with
GELU, a gate and a skip; then the mean over time, and logits.

    python -m echolith.examples.series motions
    python -m echolith.examples.series vowels
    python -m echolith.examples.series Heartbeat_TRAIN.ts Heartbeat_TEST.ts

The first two data sets come with aeon (``pip install 'echolith[series]'``), which reads the files of the UEA archive
too.
"""

import math
import sys
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import nn
from torch.func import grad, vmap

import echolith as el
from echolith.compiler.design import Design
from echolith.compiler.reference import bptt
from echolith.host.rates import SCHEDULES, shuffled
from echolith.host.session import Session

__all__ = [
    "DT", "TASKS", "Oscillators", "Series", "Task", "accuracy", "compiled", "joined", "learn", "learn_by_bptt", "load",
    "main", "normalise",
]

DT = 0.25
_MOMENTUM, _SCHEDULE, _LANES = 0.9, "cosine", 8


@dataclass(frozen=True)
class Task:
    """A data set's name in aeon, and how it is learned; with ``state``, in a format of states that leaves them room."""

    name: str
    epochs: int
    batch: int
    learning_rate: float
    state: str | None = None

    @property
    def precision(self) -> str | dict[str, str]:
        return {"state": self.state} if self.state else "auto"


TASKS = {
    "motions": Task("BasicMotions", 40, 20, 0.01), "vowels": Task("JapaneseVowels", 30, 32, 0.005, "Q5.12"),
}


class Norm(nn.Module):
    """By statistics that `normalise` takes from data, and which stay."""

    mean, scale = 0.0, 1.0

    def forward(self, x):
        return (x - self.mean) * self.scale


class Oscillators(nn.Module):
    """V = |q|^2 / 4 + sum log cosh(W q + B x + b), or, linear, |q|^2 / 4 + |W q|^2 / 2 - q (B x + b)."""

    def __init__(self, inputs: int, units: int, linear: bool):
        super().__init__()
        self.states, self.inputs, self.linear = {"q": units}, inputs, linear
        self.W, self.B = nn.Linear(units, units, bias=False), nn.Linear(inputs, units)

    def energy(self, q, x):
        spring, z = 0.25 * (q * q).sum(), self.W(q)
        if self.linear:
            return spring + 0.5 * (z * z).sum() - (q * self.B(x)).sum()
        return spring + torch.log(torch.cosh(z + self.B(x))).sum()


class Readout(nn.Module):
    def __init__(self, units: int, width: int):
        super().__init__()
        self.C, self.D = nn.Linear(units, width), nn.Linear(width, width, bias=False)

    def forward(self, q, x):
        return nn.functional.gelu(self.C(q) + self.D(x))


class Gate(nn.Module):
    """A gated linear unit and a skip."""

    def __init__(self, width: int):
        super().__init__()
        self.V, self.G = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, g, x):
        return x + self.V(g) * torch.sigmoid(self.G(g))


class Mean(nn.Module):
    """Slow linear oscillators: half a swing is all rows, so they end at a mean over time, q = sum of w_t P x_t with
    half a sine as weights."""

    def __init__(self, inputs: int, units: int, rows: int):
        super().__init__()
        self.states, self.inputs = {"q": units}, inputs
        self.frequency = math.pi / (rows * DT)
        self.P = nn.Linear(inputs, units, bias=False)

    def energy(self, q, x):
        push = 4 * self.frequency / math.pi * self.frequency
        return 0.5 * self.frequency**2 * (q * q).sum() - push * (q * self.P(x)).sum()


def joined(channels: int, blocks: int, width: int, units: int, linear: bool, normed: bool = True
           ) -> tuple[dict, dict]:
    """Parts and wires of an encoder and blocks; what comes behind has the last part as its source."""
    parts, wires, x = {"encoder": nn.Linear(channels, width)}, {"encoder": ("u",)}, "encoder"
    for i in range(blocks):
        skip, layer, readout, gate = x, f"layer{i}", f"readout{i}", f"gate{i}"
        if normed:
            parts[f"norm{i}"], wires[f"norm{i}"], x = Norm(), (skip,), f"norm{i}"
        parts |= {layer: Oscillators(width, units, linear), readout: Readout(units, width), gate: Gate(width)}
        wires |= {layer: (x,), readout: (layer, x), gate: (readout, skip)}
        x = gate
    return parts, wires


class Series(el.Stack):
    """Logits of a series of rows of ``channels``.

    Parameters
    ----------
    channels, classes, rows : int
    blocks, width, units : int
        Blocks, their width, oscillators of each.
    linear : bool
        Linear oscillators.
    """

    def __init__(self, channels: int, classes: int, rows: int, *, blocks: int = 2, width: int = 16, units: int = 16,
                 means: int = 8, linear: bool = False):
        self.outputs = classes
        parts, wires = joined(channels, blocks, width, units, linear)
        super().__init__({**parts, "mean": Mean(width, means, rows)}, wires, inputs=channels)
        self.R = nn.Linear(means, classes)
        with torch.no_grad():  # so that means need not grow for logits to
            self.R.weight *= 12

    def cost(self, q, y):
        return nn.functional.binary_cross_entropy_with_logits(self.R(q), y, reduction="sum")

    def predict(self, q):
        return self.R(q)


def normalise(net: el.Stack, x: np.ndarray) -> None:
    """Set every `Norm` by the mean and the spread, over samples, time, units and blocks, of what they are given. One
    pair of numbers for all lets blocks share their circuits."""
    norms = {name: m for name in net.order if isinstance(m := net.get_submodule(name), Norm)}
    rows = list(_run(net, torch.as_tensor(x, dtype=torch.float32)))
    given = torch.stack([values[net.wires[name][0]] for values in rows for name in norms])
    for norm in norms.values():
        norm.mean, norm.scale = float(given.mean()), 1 / float(given.std())


@torch.no_grad()
def _run(net: el.Stack, x: torch.Tensor):
    """The values of all parts at every row."""
    q = {name: torch.zeros(len(x), *net.get_submodule(name).states.values()) for name in net.layers}
    p = {name: torch.zeros_like(v) for name, v in q.items()}
    for u in x.unbind(1):
        q = {name: v + DT * p[name] for name, v in q.items()}
        values = vmap(net.values)(q, u)
        for name in net.layers:
            p[name] = p[name] - DT * vmap(grad(net.get_submodule(name).energy))(q[name], values[net.wires[name][0]])
        yield values


def load(*names: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training rows (samples, rows, channels) and labels, then those for the test; of a task, or of two .ts files."""
    try:
        datasets = import_module("aeon.datasets")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("time series are read by aeon: pip install 'echolith[series]'") from error
    if len(names) == 2:
        (train, labels), (test, wanted) = (datasets.load_from_ts_file(path) for path in names)
    else:
        name = TASKS[names[0]].name
        (train, labels), (test, wanted) = (datasets.load_classification(name, split=s) for s in ("train", "test"))
    names = tuple(sorted(set(labels)))
    rows = max(s.shape[1] for s in (*train, *test))
    center = np.concatenate(list(train), axis=1).mean(1)
    spread = np.concatenate(list(train), axis=1).std(1)
    return (*(part for series, own in ((train, labels), (test, wanted))
              for part in (_rows(series, rows, center, spread), np.array([names.index(n) for n in own]))),)


def _rows(series, rows: int, center: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Shorter series start later. Scaled as the training data are, clipped at four standard deviations."""
    found = np.zeros((len(series), rows, len(center)))
    for row, one in zip(found, series, strict=True):
        row[rows - one.shape[1]:] = np.clip((one.T - center) / spread / 2, -2, 2)
    return found


def compiled(net: el.Stack, task: Task, x: np.ndarray, labels: np.ndarray, substeps: int = 1) -> Design:
    return el.compile(net, dynamics=el.Leapfrog(DT, substeps), rule=el.HamiltonianEcho(), lanes=_LANES,
                      precision=task.precision, calibrate=(x, np.eye(net.outputs)[labels]))


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float((outputs.reshape(len(labels), -1).argmax(1) == labels).mean())


def learn(chip: Session, task: Task, x: np.ndarray, labels: np.ndarray) -> list[float]:
    """The cost of every epoch, from updates on the chip."""
    return chip.fit(x, np.eye(chip.design.outputs)[labels], epochs=task.epochs, batch_size=task.batch,
                    learning_rate=task.learning_rate, momentum=_MOMENTUM, schedule=_SCHEDULE).loss


def learn_by_bptt(net: el.Stack, task: Task, x: np.ndarray, labels: np.ndarray, substeps: int = 1) -> None:
    """The same by float64 backpropagation through time. Moves ``net``'s parameters."""
    y, parameters = np.eye(net.outputs)[labels], dict(net.double().named_parameters())
    velocity = {name: torch.zeros_like(p) for name, p in parameters.items()}
    batches = math.ceil(len(x) / task.batch)
    for step in range(task.epochs * batches):
        epoch, place = divmod(step, batches)
        batch = shuffled(len(x), 0, epoch)[place * task.batch:(place + 1) * task.batch]
        gradient, _ = bptt(net, x[batch], y[batch], DT, substeps)
        rate = task.learning_rate * SCHEDULES[_SCHEDULE](step / (task.epochs * batches))
        with torch.no_grad():
            for name, p in parameters.items():
                velocity[name] = _MOMENTUM * velocity[name] + torch.from_numpy(gradient[name])
                p -= rate * velocity[name]


def main() -> None:
    names = sys.argv[1:] or ["motions"]
    x, labels, test, wanted = load(*names)
    task = TASKS.get(names[0], TASKS["vowels"])
    torch.manual_seed(0)
    net = Series(x.shape[2], int(labels.max()) + 1, x.shape[1])
    normalise(net, x)
    design = compiled(net, task, x, labels)
    with design.open("int:") as chip:
        for epoch, loss in enumerate(learn(chip, task, x, labels)):
            print(f"epoch {epoch + 1}: cost {loss:.4f}")
        print(f"learned on the chip: {100 * accuracy(chip.predict(test), wanted):.1f} % of the test")
    learn_by_bptt(net, task, x, labels)
    outputs = bptt(net, test, np.eye(net.outputs)[wanted], DT, 1)[1]
    print(f"by backpropagation:  {100 * accuracy(outputs, wanted):.1f} %")


if __name__ == "__main__":
    main()
