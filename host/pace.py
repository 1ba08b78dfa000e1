"""Samples per second of a learning or predicting session, by its own host's traffic."""

import numpy as np

from echolith.compiler.design import Design
from echolith.host.chip import ChipDevice
from echolith.host.wire import Wire

__all__ = ["paces"]

_COUNTED = 3  # batches, behind the first


def paces(design: Design, entry: str, batch: int, *, baud: float, clock: float) -> dict[str, float]:
    """Samples per second of ``entry``, ``learn`` with an update per ``batch``: ``held`` with the data set on the chip,
    only orders sent, ``link`` with every sample sent. Outputs are fetched in both."""
    found = {}
    for held in (True, False):
        wire = Wire(design, baud=baud, clock=clock)
        found["held" if held else "link"] = _COUNTED * batch / _seconds(design, entry, batch, held, wire)
    return found


def _seconds(design: Design, entry: str, batch: int, held: bool, wire: Wire) -> float:
    """That the counted batches take."""
    chip = ChipDevice(design, wire)  # type: ignore[arg-type]
    parts = [_samples(design, batch, seed) for seed in range(_COUNTED + 2)]
    orders = [np.roll(np.arange(batch), seed) for seed in range(len(parts))]
    if held:
        fit = max(min(batch, chip.hw.depths.data // design.record.lines), 1)
        held = chip.hold(*(part[:fit] for part in parts[0]))
        orders = [order % fit for order in orders]
    begun, learns = 0.0, entry == "learn"
    entry = design.learning(1) if learns else entry
    for i in range(_COUNTED + 1):
        if held:
            chip.run_held(entry, orders[i], orders[i + 1] if learns else None)
        else:
            chip.run(entry, *parts[i], parts[i + 1] if learns else None)
        if learns:
            chip.update({name: (i, 0) for name in design.rates if name != "decay"})  # as a schedule changes them
        begun = begun or wire.now
    return wire.now - begun


def _samples(design: Design, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random words."""
    generator, hw = np.random.default_rng(seed), design.hardware
    x = generator.integers(0, 1 << hw.input_bits - 1, (count, design.dynamics.steps, design.inputs))
    return x, generator.integers(0, 2, (count, design.result_rows, design.outputs))
