"""The integer model as a device: sessions ``int:`` and ``int:compiled``."""

import numpy as np

from echolith.compiler.design import Design
from echolith.compiler.errors import DesignMismatch
from echolith.compiler.registers import Flag
from echolith.host.device import Device, Run, Samples
from echolith.sim.compiled import Compiled
from echolith.sim.model import IntegerModel
from echolith.sim.state import Outcome
from echolith.sim.trace import loaded
from echolith.sim.weights import Words

__all__ = ["IntegerDevice"]

_CHUNK = 256  # samples at once


class IntegerDevice(Device):
    """Runs the definition of the chip. Equal to it in every word and flag; counts no cycles.

    ``compiled``: by C made for the design, which needs a C++ compiler."""

    def __init__(self, design: Design, compiled: bool = False):
        self.design, self.compiled = design, compiled
        self.model = IntegerModel(design, Compiled(design) if compiled else None)
        self._held: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def response(self) -> int:
        return self.model.response

    @response.setter
    def response(self, value: int) -> None:
        self.model.response = value

    @property
    def gain(self) -> int:
        return self.model.gain

    @gain.setter
    def gain(self, value: int) -> None:
        self.model.gain = value

    def switched(self, design: Design) -> "IntegerDevice":
        if design.hardware != self.design.hardware:
            raise DesignMismatch("the design is of another hardware: compile it with like=, the present one; the "
                                 f"design is {design.hardware.hardware_id:08x}, the present one "
                                 f"{self.design.hardware.hardware_id:08x}")
        return IntegerDevice(design, self.compiled)

    def write(self, words: Words) -> None:
        loaded(self.model, words)

    def read(self) -> Words:
        return {**{n: w.copy() for n, w in self.model.masters.items()},
                **{f"vector{i}": w.copy() for i, w in enumerate(self.model.vectors)}}

    def write_gradients(self, words: Words) -> None:
        self.model.gradients = {b.name: words[b.name].copy() for b in self.design.blocks}
        self.model.vector_gradients = [words[f"vector{i}"].copy() for i in range(len(self.design.vectors))]

    def read_gradients(self) -> Words:
        return {**{n: w.copy() for n, w in self.model.gradients.items()},
                **{f"vector{i}": w.copy() for i, w in enumerate(self.model.vector_gradients)}}

    def run(self, entry: str, x: np.ndarray, target: np.ndarray, then: Samples | None = None) -> Run:
        rows, total = [], Outcome()
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            y, out = self._part(entry, x[part], target[part])
            rows.append(y)
            if out.wrapped and not total.wrapped:
                total.first = {**out.first, "sample": int(out.first["sample"]) + start}
            if out.strayed and not total.strayed:
                total.strayed = out.strayed[0] + start, out.strayed[1]
            total.wrapped |= out.wrapped
            total.echo |= out.echo
            total.response |= out.response
            total.leading |= out.leading
        flags = total.wrapped << Flag.WRAPPED | total.echo << Flag.ECHO
        outputs = None if entry == "echo" else np.concatenate(rows)
        return Run(outputs, flags, total.response, total.leading, first=total.first or None,
                   strayed=total.strayed)

    def _part(self, entry: str, x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, Outcome]:
        if entry == "predict":
            return self.model.predict(x)
        if entry in ("learn", "unchecked"):
            return self.model.learn(x, target, entry == "learn")
        state, out = self.model.echo(x)
        return state.q, out

    def hold(self, x: np.ndarray, target: np.ndarray) -> bool:
        self._held = (x, target)
        return True

    def run_held(self, entry: str, order: np.ndarray, then: np.ndarray | None = None) -> Run:
        if self._held is None:
            raise ValueError("hold a data set before run_held")
        return self.run(entry, self._held[0][order], self._held[1][order])

    def update(self, rates: dict[str, tuple[int, int]]) -> Run:
        out = self.model.update(rates)
        return Run(flags=out.gradient << Flag.GRADIENT | out.large << Flag.LARGE, saturated=out.saturated)

    def clear(self) -> None:
        self.model.clear()
