"""The long run: learn in the integer model, learn the same by backpropagation through time, compare gradients."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from echolith.compiler.design import Design
from echolith.compiler.reference import bptt
from echolith.examples.digits import BATCH, DT, LEARNING_RATE, MOMENTUM, SUBSTEPS, data, split
from echolith.host.rates import SCHEDULES, shuffled
from echolith.host.session import Session

__all__ = ["Curve", "accuracy", "cosine", "learn", "learn_by_bptt"]

_SEED = 0  # of the order of samples
_SCHEDULE = "cosine"

Report = Callable[[int, float, float], None]  # epoch, loss, test accuracy


@dataclass
class Curve:
    """One entry per epoch."""

    loss: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose largest output, the last one in time, is their label's."""
    last = outputs if outputs.ndim == 2 else outputs[:, -1]
    return float((last.argmax(axis=1) == labels).mean())


def learn(chip: Session, epochs: int, report: Report) -> Curve:
    """`Session.fit` over ``epochs``, tested after each. The test decides nothing."""
    x, y = data(chip.design.dynamics.cost_at or "last")
    _, _, test, labels = split()
    batches, curve = math.ceil(len(x) / BATCH), Curve()
    losses: list[float] = []

    def progress(done: int, total: int, loss: float) -> None:
        losses.append(loss)
        if done % batches == 0:
            curve.loss.append(float(np.mean(losses[-batches:])))
            curve.test.append(accuracy(chip.predict(test), labels))  # changes neither weights nor momentum
            report(done // batches, curve.loss[-1], curve.test[-1])

    chip.fit(x, y, epochs=epochs, batch_size=BATCH, learning_rate=LEARNING_RATE, momentum=MOMENTUM,
             schedule=_SCHEDULE, seed=_SEED, progress=progress)
    return curve


def learn_by_bptt(net: torch.nn.Module, epochs: int, report: Report, cost_at: str = "last", dissipation: float = 0.0
                  ) -> Curve:
    """The same initial network, data, batches, order, update rule and schedule as `learn`, in float64. Moves ``net``'s
    parameters."""
    x, y = data(cost_at)
    _, _, test, labels = split()
    net.double()
    parameters = dict(net.named_parameters())
    velocity = {name: torch.zeros_like(p) for name, p in parameters.items()}
    starts, curve = range(0, len(x), BATCH), Curve()
    for epoch in range(epochs):
        order, losses = shuffled(len(x), _SEED, epoch), []
        for index, start in enumerate(starts):
            batch = order[start:start + BATCH]
            gradient, outputs = bptt(net, x[batch], y[batch], DT, SUBSTEPS, cost_at, dissipation=dissipation)
            losses.append(_cost(outputs, y[batch]))
            rate = LEARNING_RATE * SCHEDULES[_SCHEDULE]((epoch * len(starts) + index) / (epochs * len(starts)))
            with torch.no_grad():
                for name, p in parameters.items():
                    velocity[name] = MOMENTUM * velocity[name] + torch.from_numpy(gradient[name])
                    p -= rate * velocity[name]
        curve.loss.append(float(np.mean(losses)))
        _, outputs = bptt(net, test, np.eye(10)[labels], DT, SUBSTEPS, dissipation=dissipation)
        curve.test.append(accuracy(outputs, labels))
        report(epoch + 1, curve.loss[-1], curve.test[-1])
    return curve


def _cost(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Binary cross-entropy per sample, summed over the outputs, and over time."""
    cross = torch.nn.functional.binary_cross_entropy_with_logits
    return float(cross(torch.as_tensor(outputs), torch.as_tensor(targets), reduction="sum")) / len(targets)


def cosine(chip: Session, net: torch.nn.Module, design: Design, samples: int = 256) -> float:
    """Between the chip's gradient and float64 BPTT with the chip's own weights, all parameters in one vector."""
    x, y = (a[:samples] for a in data())
    weights = chip.state_dict()
    net.double()
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(torch.from_numpy(weights[name]))
    found = chip.gradient(x, y)
    reference, _ = bptt(net, x, y, design.dynamics.dt, design.dynamics.substeps)
    a = np.concatenate([found[name].ravel() for name in sorted(found)])
    b = np.concatenate([reference[name].ravel() for name in sorted(found)])
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
