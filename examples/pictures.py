"""Pictures of the demo: the learning curves, and an echo forward and back."""

import dataclasses
from pathlib import Path

import matplotlib
import numpy as np

from echolith.compiler.design import Design
from echolith.examples.teach import Curve
from echolith.sim.data import words
from echolith.sim.model import IntegerModel
from echolith.sim.state import State
from echolith.sim.weights import load

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of backend

__all__ = ["draw_curves", "draw_echo", "echo_trace"]


def draw_curves(chip: Curve, reference: Curve, path: Path) -> None:
    """Test accuracy and training cost by epoch, of the chip and of float64 BPTT."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    epochs = np.arange(1, len(chip.loss) + 1)
    for curve, style, label in ((reference, "-", "float64 BPTT"), (chip, "o", "chip: Hamiltonian echo, integers")):
        left.plot(epochs, 100 * np.array(curve.test), style, label=label, markersize=4)
        right.semilogy(epochs, curve.loss, style, label=label, markersize=4)
    left.set(xlabel="epoch", ylabel="test accuracy, %")
    right.set(xlabel="epoch", ylabel="training cost per sample")
    left.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def echo_trace(design: Design, values: dict[str, np.ndarray], sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position words (steps + 1, units) of one sample (rows, inputs), forward and back, both by step from 0.

    Every substep is made an input row of its own, so that the integer model shows all of them."""
    d = design.dynamics
    single = dataclasses.replace(d, substeps=1, steps=d.steps * d.substeps)
    model = IntegerModel(dataclasses.replace(design, dynamics=single))
    load(model, values)
    x, _ = words(design, np.repeat(sample, d.substeps, axis=0)[None], None)
    trace: list[State] = []
    last, _ = model.echo(x, trace)
    steps = single.steps
    forward = np.concatenate([np.zeros_like(last.q), *(s.q for s in trace[:steps])])
    back = np.concatenate([last.q, *(s.q for s in reversed(trace[steps:])), trace[steps - 1].q])
    return forward, back


def draw_echo(forward: np.ndarray, back: np.ndarray, unit: float, path: Path, count: int = 5) -> None:
    """The units that move most: forward as lines, back as circles; ``unit`` is the size of a word's last bit."""
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    steps = np.arange(len(forward))
    for index, number in enumerate(np.argsort(-np.abs(forward).max(axis=0))[:count]):
        axes.plot(steps, forward[:, number] * unit, "-", color=f"C{index}", label=f"unit {number}")
        axes.plot(2 * steps[-1] - steps, back[:, number] * unit, "o--", color=f"C{index}", markersize=4, linewidth=0.8)
    axes.axvline(steps[-1], color="grey", linewidth=0.8)
    same = "every bit returns" if np.array_equal(forward, back) else "THE RETURN DIFFERS"
    axes.set(xlabel="integrator step: forward, then the echo back to the start", ylabel="position q", title=same)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=120)
    plt.close(figure)
