"""What torch does in the chip's place: the same leapfrog in float32, autograd through it, a step of SGD.

Its fastest spelling in eager mode: forces are written out instead of taken by a second autograd, B u + b is computed
once per input row, the kick after the last step is left out. With one thread or torch's own number of them, whichever
is faster: on a busy machine threads that wait for each other cost up to fifty times.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from echolith.bench.nets import samples
from echolith.examples.digits import DT, SUBSTEPS, Digits

__all__ = ["BATCHES", "learner", "on_threads", "rate"]

BATCHES = (1, 32, 128, 512, 2048, 8192)
_REPEATS, _SECONDS = 7, 0.2  # each


def rate(units: int, batch: int) -> dict[str, float]:
    """Learned samples per second: median of some repeats, the slowest and the fastest; threads; ``share`` of a core
    that one thread got, less than 1 if others were at work; ``thread`` is the median of samples per second of the
    processor's time, on one thread, which others at work disturb least."""
    torch.manual_seed(0)
    step, own = learner(Digits(units, units), batch), torch.get_num_threads()
    found: dict[int, list[float]] = {threads: [] for threads in sorted({1, own})}
    for threads in found:
        with on_threads(threads):
            for _ in range(3):
                step()
    shares, alone = [], []
    for _ in range(_REPEATS):
        for threads, rates in found.items():
            with on_threads(threads):
                seconds, share = _timed(step)
            rates.append(batch / seconds)
            if threads == 1:
                shares.append(share)
                alone.append(batch / seconds / share)
    threads = max(found, key=lambda n: statistics.median(found[n]))
    rates = found[threads]
    return {"median": statistics.median(rates), "worst": min(rates), "best": max(rates), "threads": threads,
            "share": statistics.median(shares), "thread": statistics.median(alone)}


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _timed(step: Callable[[], None]) -> tuple[float, float]:
    """Seconds of one call, and processor time over time."""
    calls, begun, used = 0, time.perf_counter(), time.process_time()
    while not calls or time.perf_counter() - begun < _SECONDS:
        step()
        calls += 1
    spent = time.perf_counter() - begun
    return spent / calls, (time.process_time() - used) / spent


def learner(net: Digits, batch: int) -> Callable[[], None]:
    """Learns the same batch every time it is called."""
    x, y = (torch.from_numpy(a.astype(np.float32)) for a in samples(batch))
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        q = _forward(net, x)
        cost = nn.functional.binary_cross_entropy_with_logits(net.C(q), y, reduction="sum") / batch
        cost.backward()
        optimiser.step()

    return step


def _forward(net: Digits, x: torch.Tensor) -> torch.Tensor:
    """Positions after the last drift; `compiler.reference` has the convention."""
    weight = net.W.weight
    q = p = torch.zeros(len(x), weight.shape[1])
    steps = x.shape[1] * SUBSTEPS
    drives = [net.B(x[:, row]) for row in range(x.shape[1])]
    for step in range(steps):
        q = q + DT * p
        if step + 1 < steps:
            p = p - DT * (q + torch.tanh(q @ weight.T + drives[step // SUBSTEPS]) @ weight)
    return q
