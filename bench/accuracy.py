"""Accuracy of the demo's network over seeds: the chip's integers beside float64 BPTT. Minutes a seed."""

import time
from collections.abc import Iterator

import torch
from threadpoolctl import threadpool_limits

import echolith as el
from echolith.bench.figure import Choice, Figure, Row, Say
from echolith.bench.store import Store
from echolith.examples import digits
from echolith.examples.teach import cosine, learn, learn_by_bptt

__all__ = ["FIGURE"]

_SEEDS = 3


def _measure(choice: Choice, store: Store, say: Say) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for seed in range(choice.seeds or _SEEDS):
                yield _row(seed, say)
    finally:
        torch.set_num_threads(threads)


def _row(seed: int, say: Say) -> Row:
    """One seed of the initial weights: test accuracies of the last epoch, gradient cosines untrained and trained."""
    begun = time.monotonic()

    def report(epoch: int, loss: float, test: float) -> None:
        say(f"accuracy: seed {seed}, epoch {epoch} of {digits.EPOCHS}, test {test:.4f}")

    design = el.compile(digits.large(seed), dynamics=el.Leapfrog(digits.DT, digits.SUBSTEPS), lanes=8,
                        rule=el.HamiltonianEcho("last"), calibrate=digits.data())
    with design.open("int:") as chip:
        untrained = cosine(chip, digits.large(seed), design)
        curve = learn(chip, digits.EPOCHS, report)
        trained = cosine(chip, digits.large(seed), design)
    seconds = time.monotonic() - begun
    reference = learn_by_bptt(digits.large(seed), digits.EPOCHS, report)
    return {"seed": seed, "epochs": digits.EPOCHS, "test": curve.test[-1], "bptt": reference.test[-1],
            "cosine_untrained": untrained, "cosine_trained": trained, "seconds_chip": seconds,
            "seconds_bptt": time.monotonic() - begun - seconds}


FIGURE = Figure(
    title="Test accuracy on digits: the chip's integers and float64 BPTT", keys=("seed",),
    tools=("numpy", "torch", "scikit-learn"), measure=_measure,
    columns={
        "seed": lambda r: r["seed"], "epochs": lambda r: r["epochs"], "chip": lambda r: f"{100 * r['test']:.1f} %",
        "BPTT": lambda r: f"{100 * r['bptt']:.1f} %",
        "gradient's cosine, untrained": lambda r: f"{r['cosine_untrained']:.8f}",
        "trained": lambda r: f"{r['cosine_trained']:.6f}",
        "seconds, chip": lambda r: f"{r['seconds_chip']:,.0f}", "BPTT's": lambda r: f"{r['seconds_bptt']:,.0f}",
    },
)
