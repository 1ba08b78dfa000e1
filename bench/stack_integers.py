"""The echo of a stack in integers, as its chip would run it; functions of words are float64's, rounded.

States are words that wrap, forces and drifts are rounded once, and an un-nudged copy has to return bit for bit. Values
of blocks, activations of layers and what is handed down to blocks are rounded to words of their own; between two
roundings functions are exact, and so are the sums that make gradients. Every sample's nudge is a power of two by its
largest cost derivative, as on chips; every layer has an exponent for what it is handed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from echolith.bench.stack_nets import Layer
from echolith.compiler.local import Gradients, Local, Values
from echolith.compiler.objective import Objective
from echolith.compiler.stack import Stack
from echolith.sim.arith import wrap

__all__ = ["Bits", "IntegerEcho"]

_SIGNS = (0, 1, -1)
Words = dict[str, np.ndarray]  # by layer


@dataclass(frozen=True)
class Bits:
    """Fraction bits, but for ``width``, the bits of a word.

    ``once``: what a layer is handed is rounded once, to words of its momenta; else as what blocks are handed before.
    """

    width: int = 18
    state: int = 14
    value: int = 14  # of blocks
    z: int = 14
    t: int = 17
    handed: int = 16
    once: bool = True


@dataclass
class _Phase:
    q: Words
    p: Words
    wrapped: bool = False

    def move(self, part: str, name: str, by: np.ndarray, width: int) -> None:
        words: Words = getattr(self, part)
        moved = words[name] + by
        words[name] = wrap(moved, width)
        self.wrapped |= bool((words[name] != moved).any())


class _Rounded(Local):
    """Local derivatives where values of blocks, sums and activations are words."""

    def __init__(self, stack: Stack, bits: Bits):
        super().__init__(stack)
        self.bits = bits
        for name in self.stack.layers:
            layer = self.stack.get_submodule(name)
            if isinstance(layer, Layer):
                layer.z, layer.t = (lambda x: _rounded(x, bits.z)), (lambda x: _rounded(x, bits.t))

    def values(self, q: Values, u: torch.Tensor) -> Values:
        found = {"u": u, **q}
        for name in self.stack.order:
            if name not in self.stack.layers:
                given = (found[source] for source in self.stack.wires[name])
                found[name] = _rounded(torch.func.vmap(self.stack.get_submodule(name))(*given), self.bits.value)
        return found


def _rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.floor(x * 2.0**bits + 0.5) * 2.0**-bits


class IntegerEcho:
    """One batch, forward and back.

    Parameters
    ----------
    scale
        From the samples' nudges, (batch,), to exponents of layers, as `stacked.stack_echo` takes them. A block has the
        least of the parts that it feeds, the last one 0: words of what it is handed should not clip, and do if they are
        too large.

    Attributes
    ----------
    returned
        Whether copy 0 of every sample came back, bit for bit.
    response
        The largest |q+ - q-| of every layer.
    wrapped
        Whether a state left its range, which returns but means nothing.
    """

    def __init__(self, stack: Stack, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int, cost_at: str, bits: Bits,
                 scale: Callable[[np.ndarray], Mapping[str, int]]):
        self._objective, self._local = Objective(stack, X, Y, cost_at, None), _Rounded(stack, bits)
        self._bits, self._stack, self._dt, self._substeps = bits, self._local.stack, dt, substeps
        self.response = dict.fromkeys(stack.layers, 0.0)
        self._sums = {name: torch.zeros_like(p) for name, p in self._local.learned.items()}
        rest = {name: q.numpy().astype(np.int64) for name, q in self._local.rest(len(X)).items()}
        self._copies = {0: _Phase(dict(rest), dict(rest))}
        with torch.no_grad():
            self._nudge = 2.0 ** -np.floor(np.log2(self._forward()))
            self._exponents = _exponents(stack, scale(self._nudge))
            free = self._copies[0]
            self._copies = {sign: _Phase(dict(free.q), dict(free.p), free.wrapped) for sign in _SIGNS}
            for row in reversed(range(X.shape[1])):
                for substep in reversed(range(self._substeps)):
                    self._back(row, substep == self._substeps - 1)
        end = self._copies[0]
        self.returned = not any(words.any() for words in (*end.q.values(), *end.p.values()))
        self.wrapped = any(copy.wrapped for copy in self._copies.values())

    @property
    def gradients(self) -> dict[str, np.ndarray]:
        return {name: g.numpy() / len(self._objective.x) for name, g in self._sums.items()}

    def _forward(self) -> np.ndarray:
        """The largest cost derivative of every sample."""
        largest, free = np.full(len(self._objective.x), 1e-9), self._copies[0]
        for row in range(len(self._objective.factors)):
            values: Values = {}
            for _ in range(self._substeps):
                self._drift(free, 1)
                values = self._values(free, row)
                self._kick(free, values, -1)
            found = self._cost(row, values)
            if found is not None:
                largest = np.maximum(largest, found[0].abs().amax(1).numpy())
        return largest

    def _cost(self, row: int, values: Values) -> tuple[torch.Tensor, Gradients] | None:
        if (factor := self._objective.factors[row]) is None:
            return None
        return self._local.cost(values[self._stack.output], self._objective.target(row), factor)

    def _real(self, words: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(words * 2.0**-self._bits.state)

    def _words(self, x: torch.Tensor) -> np.ndarray:
        return np.floor(x.numpy() * 2.0**self._bits.state + 0.5).astype(np.int64)

    def _values(self, copy: _Phase, row: int) -> Values:
        return self._local.values({name: self._real(q) for name, q in copy.q.items()}, self._objective.x[:, row])

    def _drift(self, copy: _Phase, sign: int) -> None:
        for name, p in copy.p.items():
            copy.move("q", name, sign * self._words(self._dt * self._real(p)), self._bits.width)

    def _kick(self, copy: _Phase, values: Values, sign: int) -> None:
        for name, q in copy.q.items():
            force = self._local.force(name, self._real(q), self._local.fed(name, values))
            copy.move("p", name, sign * self._words(self._dt * force), self._bits.width)

    def _back(self, row: int, asked: bool) -> None:
        values, handed = self._values(self._copies[0], row), {}
        if asked and (found := self._cost(row, values)) is not None:
            self._learn(found[1])
            self._hand(handed, self._stack.output, found[0])
        for name in reversed(self._stack.order):
            self._down(name, values, handed)
        for sign, copy in self._copies.items():
            self._kick(copy, values, 1)
            for name in handed.keys() & copy.p.keys():
                nudge = self._words(self._by_sample(self._exponents[name]) * handed[name])
                copy.move("p", name, -sign * nudge, self._bits.width)
            self._drift(copy, -1)

    def _down(self, name: str, values: Values, handed: Values) -> None:
        if name in self._stack.layers:
            up, down = (self._real(self._copies[sign].q[name]) for sign in (1, -1))
            self.response[name] = max(self.response[name], float((up - down).abs().max()))
            weight = -self._dt / 2 / self._by_sample(self._exponents[name])[:, 0]
            given, found = self._local.contrast(name, up, down, self._local.fed(name, values), weight)
            by_source = {self._stack.wires[name][0]: given}
        elif name in handed:
            by_source, found = self._local.pulled(name, values, handed[name])
        else:
            return
        self._learn(found)
        for source, given in by_source.items():
            self._hand(handed, source, given)

    def _hand(self, handed: Values, source: str, given: torch.Tensor) -> None:
        """Add to what a part is handed, as words of its exponent."""
        if source != "u":
            momentum = source in self._stack.layers and self._bits.once
            bits, factor = self._bits.state if momentum else self._bits.handed, self._by_sample(self._exponents[source])
            limit = 2.0 ** (self._bits.width - 1 - bits)
            given = torch.clamp(_rounded(factor * given, bits), -limit, limit) / factor
        handed[source] = handed[source] + given if source in handed else given

    def _by_sample(self, exponent: int) -> torch.Tensor:
        """(batch, 1)"""
        return torch.from_numpy(self._nudge * 2.0**exponent)[:, None]

    def _learn(self, found: Gradients) -> None:
        for name, gradient in found.items():
            self._sums[name] += gradient


def _exponents(stack: Stack, scale: Mapping[str, int]) -> dict[str, int]:
    """Of what every part is handed."""
    found = {stack.output: 0}
    for name in reversed(stack.order):
        own = scale[name] if name in stack.layers else found[name]
        for source in stack.wires[name]:
            found[source] = min(found.get(source, own), own)
    return {**found, **scale}
