"""Why a run raised a flag: found by replaying the batch in the integer model with the chip's weights."""

from dataclasses import replace

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.registers import Flag
from echolith.host.chip import ChipDevice
from echolith.host.device import Device, Run
from echolith.sim.astray import astray
from echolith.sim.device import IntegerDevice
from echolith.sim.locate import locate
from echolith.sim.stability import curvature
from echolith.sim.weights import to_values

__all__ = ["diagnose"]


def diagnose(design: Design, device: Device, run: Run, x: np.ndarray, y: np.ndarray, entry: str,
             checkpoint: str | None) -> str:
    """The message for the user: what, where, why, and what to do."""
    kept = f"; the batch was discarded and the weights are kept; last checkpoint: {checkpoint or 'none'}"
    if run.flags >> Flag.GRADIENT & 1:
        return ("a gradient word is about to wrap: use smaller batches or less momentum, or calibrate again with the "
                "present weights" + kept)
    words = device.read()
    floats = x * 2.0 ** -design.fractions["input"]
    times = design.rule.runs if entry in ("learn", "unchecked") else 1  # that each sample of the batch is among these
    stability = curvature(design, to_values(design, words, design.values), floats)
    advice = f"dt^2 * lambda_max = {stability:.3g}, stable below 4: lower the learning rate or dt" + kept
    if not run.flags >> Flag.WRAPPED & 1:
        place = _strayed(device, run, x, y, times)
        return (f"the un-nudged copy did not return to its initial state{place}: the chip is faulty or overclocked; "
                f"{advice}")
    first = run.first
    if not first:
        replay = IntegerDevice(design)
        replay.write(words)
        replay.response = device.response
        first = replay.run(entry, x, y).first or {}
    if "sample" in first:
        first = {**first, "sample": int(first["sample"]) // times}
    where = ", ".join(f"{k} {v}" for k, v in first.items()) or "not reproduced by the integer model"
    limit = 2.0 ** (design.hardware.width - 1 - design.fractions["state"])
    wider = f"Q{design.hardware.width - design.fractions['state']}.{design.fractions['state'] - 1}"
    advice = advice.replace("or dt", f"or dt, or compile with precision={{'state': '{wider}'}}", 1)
    return f"a state left its range of +-{limit:g} ({where}); {advice}"


def _strayed(device: Device, run: Run, x: np.ndarray, y: np.ndarray, times: int) -> str:
    """Where copy 0 left its way, each sample being here so many ``times``: of a chip that does it again, where it first
    leaves the integer model, run again pair by pair; else by the state that it came back with."""
    words, chip = device.read(), isinstance(device, ChipDevice)
    if isinstance(device, ChipDevice):
        for start in range(0, len(x), 2):
            pair = slice(start, start + 2)
            if found := locate(device, words, "echo", x[pair], y[pair], every=run.strayed is None):
                found = found.after(start)
                return f" ({found if found.sample is None else replace(found, sample=found.sample // times)})"
    if run.strayed is not None:
        sample, back = run.strayed
        if found := astray(device.design, words, x[sample], back):
            return f" ({replace(found, sample=sample // times)}{'; not when it is run again' if chip else ''})"
    return " (and does when it is run again)" if chip else ""
