"""Accuracy of the demo's network over seeds: the chip's integers beside float64 BPTT. Prints JSON.

    .venv/bin/python bench/accuracy.py [seeds]
"""

import json
import sys
import time

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import echolith as el
from echolith.examples import digits
from echolith.examples.teach import cosine, learn, learn_by_bptt
from echolith.host.doctor import versions

__all__ = ["main", "measure"]


def measure(seed: int) -> dict:
    """One seed of the initial weights: test accuracies of the last epoch, gradient cosines untrained and trained."""
    begun = time.monotonic()

    def report(epoch: int, loss: float, test: float) -> None:
        print(f"seed {seed}, epoch {epoch}, cost {loss:.4f}, test {test:.4f}, {time.monotonic() - begun:.0f} s",
              file=sys.stderr)

    design = el.compile(digits.large(seed), dynamics=el.Leapfrog(digits.DT, digits.SUBSTEPS), lanes=8,
                        rule=el.HamiltonianEcho("last"), calibrate=digits.data())
    with design.open("int:") as chip:
        untrained = cosine(chip, digits.large(seed), design)
        chip_curve = learn(chip, digits.EPOCHS, report)
        trained = cosine(chip, digits.large(seed), design)
    seconds = time.monotonic() - begun
    reference = learn_by_bptt(digits.large(seed), digits.EPOCHS, report)
    return {"seed": seed, "test": chip_curve.test[-1], "bptt": reference.test[-1], "cosine_untrained": untrained,
            "cosine_trained": trained, "seconds_chip": seconds, "seconds_bptt": time.monotonic() - begun - seconds}


def main(seeds: int) -> None:
    """Seeds 0, 1, ..., and their means."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = [measure(seed) for seed in range(seeds)]
    means = {name: float(np.mean([r[name] for r in rows])) for name in ("test", "bptt")}
    print(json.dumps({"epochs": digits.EPOCHS, "rows": rows, "mean": means, "tools": versions()}, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
