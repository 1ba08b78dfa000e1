"""Ranging at compile time: the integer model learns from calibration samples to place nudges, response and gain."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from echolith.compiler.calibrate import Samples
from echolith.compiler.design import Design, Hardware, Rule
from echolith.compiler.errors import RangeError

__all__ = ["ranged"]

_SEARCH = 12  # runs until the nudge fits
_STEPS = 1024  # integrator steps of them; longer samples are ranged while learning
_HEADROOM = 6  # bits
_FALL = 2  # bits by which the gain of a stack may fall below its first one: layers' gradients grow unlike each other
_LESS = 3  # bits by which the words of a read-out's gradient are smaller, where those of layers fall while it learns
_SPARE = 2  # bits by which nudges may become stronger before the readout's own error limits the gain
_SAMPLES = 32  # calibration samples
_WEAKER = 7  # bits at most by which nudges begin stronger where a read-out begins small: no row operand is clipped


def ranged(design: Design, samples: Samples, like: Design | None, begun: Mapping[str, np.ndarray]) -> Design:
    """Shift the nudges (or, on given hardware, the response exponent) until the echoes part by 1/16..1/8 of a unit, or
    by `Design.apart` bits further, and leave the gradient words room for growth; with the values `begun`. Where a
    read-out is smaller at first, nudges begin stronger by as much."""
    from echolith.sim.data import words
    from echolith.sim.model import IntegerModel
    from echolith.sim.state import Outcome
    from echolith.sim.weights import load

    rows = min(design.dynamics.steps, max(1, _STEPS // design.dynamics.substeps))
    short = dataclasses.replace(design.dynamics, steps=rows)
    keep = slice(0, _SAMPLES)
    targets = samples.targets[keep, :rows]
    if samples.missing is not None:  # of the last rows: in long samples the targets may be there
        targets = np.where(samples.missing[keep, -rows:], np.nan, targets)
    x, y = words(design, samples.inputs[keep, :rows], targets)
    target = design.fractions["state"] - 4 + design.apart

    def learned() -> tuple[IntegerModel, Outcome]:
        model = IntegerModel(dataclasses.replace(design, dynamics=short, rule=Rule()))
        load(model, {name: values[name] for name in design.values})
        return model, model.learn(x, y)[1]

    values = begun
    model, out = learned()
    for _ in range(_SEARCH):
        error = out.response.bit_length() - 1 - target
        if out.wrapped:
            if out.first["phase"] != "echo":
                place = ", ".join(f"{name} {value}" for name, value in out.first.items())
                raise RangeError(f"a state wraps on the calibration data at {place}; give a wider state format or a "
                                 f"smaller dt, not {design.fractions['state']} fraction bits")
            error = max(error, 3)  # the nudge was far too strong
        elif out.response == 0 or error == 0:
            break
        if like is None and not design.backs and _shiftable(design, error):
            design = _shifted(design, error)
        else:
            design = dataclasses.replace(design, response=min(max(design.response - error, 0), 31))
        model, out = learned()
    longer = math.ceil(math.log2(design.dynamics.steps / rows))
    if like is None:
        design = _with_headroom(design, model, _HEADROOM + longer + (_FALL if design.errors else 0))
        model, out = learned()
    design = dataclasses.replace(design, gain=_gain(design, model, out.leading, _HEADROOM + longer))
    values = design.values
    if design.backs or all(np.array_equal(values[name], begun[name]) for name in values):
        return design
    if response := learned()[1].response:
        weaker = min(max(target + 1 - response.bit_length(), 0), _WEAKER)
        design = dataclasses.replace(design, response=min(design.response + weaker, 31))
    return design


def _gain(design: Design, model, leading: int, headroom: int) -> int:
    """Point of the gradient words that fills them up to the headroom; no sample's operands may be clipped."""
    w = design.hardware.width
    free = 2 * w - 2 - headroom - _bits([*model.gradients.values(), *model.vector_gradients])
    clear = min(design.response, design.hardware.readout_shift + w - 3) - max(leading.bit_length() - 1, 0)
    return max(0, min(free, clear))


def _with_headroom(design: Design, model, headroom: int) -> Design:
    """Gradient words 2^headroom below wrapping for a batch of the calibration data: momentum, growth, luck. The
    readout's own error never limits the gain, which would take bits from all other gradients."""
    room = 2 * design.hardware.width - 2 - headroom
    own = _bits([model.gradients["readout"]])
    others = _bits([g for name, g in model.gradients.items() if name != "readout"] + model.vector_gradients)
    if others > room:
        design = _scaled_down(design, others - room)
    excess = own - (min(room, others) - _LESS if design.errors else room)
    excess = max(excess, design.response + _SPARE - (design.hardware.width - 3))
    if excess > 0:
        hw = dataclasses.replace(design.hardware, readout_shift=excess)
        placements = tuple(dataclasses.replace(p, gradient_scale=p.gradient_scale * 2.0**excess)
                           if p.block == "readout" else p for p in design.placements)
        design = dataclasses.replace(design, hardware=hw, placements=placements)
    return design


def _bits(gradients: list[np.ndarray]) -> int:
    """Of the largest word."""
    return max((int(np.abs(g).max(initial=0)).bit_length() for g in gradients), default=0)


def _shiftable(design: Design, bits: int) -> bool:
    """Whether the word that makes nudges between the layers of a stack may be that much larger."""
    return not design.errors or 0 < design.fractions["nudge"] + bits < design.hardware.width


def _shifted(design: Design, bits: int) -> Design:
    """Nudges of a read-out 2^bits times weaker; those between the layers of a stack are what they were."""
    hw = dataclasses.replace(design.hardware, nudge_shift=design.hardware.nudge_shift + bits)
    if design.errors:
        fractions = design.fractions | {"nudge": design.fractions["nudge"] + bits}
        placements = tuple(dataclasses.replace(p, fraction=p.fraction + bits) if p.block == "nudge" else p
                           for p in design.placements)
        design = dataclasses.replace(design, fractions=fractions, placements=placements)
    return _rescale(design, hw, 2.0**bits, design.response)


def _scaled_down(design: Design, bits: int) -> Design:
    """The same nudges with gradient words 2^bits times smaller."""
    hw = dataclasses.replace(design.hardware, delta_shift=design.hardware.delta_shift + bits)
    return _rescale(design, hw, 2.0**bits, design.response + bits)


def _rescale(design: Design, hw: Hardware, factor: float, response: int) -> Design:
    placements = tuple(dataclasses.replace(p, gradient_scale=p.gradient_scale * (factor if p.block != "readout" else 1))
                       for p in design.placements)
    vectors = tuple(dataclasses.replace(v, gradient_scale=v.gradient_scale * factor) for v in design.vectors)
    return dataclasses.replace(design, hardware=hw, placements=placements, vectors=vectors, response=response)
