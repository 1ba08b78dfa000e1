"""The float64 references of a stack: backpropagation through time, and the echo in one backward sweep.

In every substep all layers drift, ``q += dt * dT/dp``, blocks are evaluated at these positions, and all layers are
kicked, ``p -= dt * dV/dq(q, u)``; from q = p = 0. Costs read the value of the last part right after the drift of the
last substep of an input row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from echolith.compiler.errors import CompileError
from echolith.compiler.local import Gradients, Local, Values
from echolith.compiler.objective import Objective
from echolith.compiler.stack import Stack

__all__ = ["response_exponents", "stack_bptt", "stack_echo"]

_AIM = -2.5  # log2 of max |q+ - q-|
_LINEAR = 1e-4  # of a nudge: where responses are measured, far below where layers notice that they are not linear
_SIGNS = (0, 1, -1)
_ROWS = 256  # that run under autograd at a time

Found = tuple[dict[str, np.ndarray], np.ndarray]


def stack_bptt(
    stack: Stack, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int, cost_at: str = "last",
    mask: np.ndarray | None = None,
) -> Found:
    """Backpropagation through time and through all parts, on a float64 copy of ``stack``.

    Arguments and results are those of `reference.bptt`; without ``predict`` the outputs are the last part's value.
    Of long samples only the states before every `_ROWS` rows are kept, from which these rows run again.
    """
    run = _Run(stack, X, Y, dt, substeps, cost_at, mask)
    pieces = [range(first, min(first + _ROWS, run.rows)) for first in range(0, run.rows, _ROWS)]
    starts = []
    for rows in pieces:
        starts.append(run.phase)
        if len(starts) < len(pieces):
            with torch.no_grad():
                for _ in run.forward(rows):
                    pass
    leaves, total, later = list(run.local.learned.values()), [], []  # later: derivatives by the states behind a piece
    for rows, start in zip(reversed(pieces), reversed(starts), strict=True):
        states = [v.detach().requires_grad_() for v in start.flat]
        run.phase = start.like(states)
        with torch.enable_grad():
            cost = _cost(run, rows) + sum((s * d).sum() for s, d in zip(run.phase.flat, later, strict=False))
            found = torch.autograd.grad(cost, [*states, *leaves], allow_unused=True, materialize_grads=True)
        later, new = found[:len(states)], found[len(states):]
        total = [a + b for a, b in zip(total, new, strict=True)] if total else list(new)
    return {name: g.numpy() for name, g in zip(run.local.learned, total, strict=True)}, run.outputs()


def _cost(run: "_Run", rows: range) -> torch.Tensor:
    """The batch mean of the costs at ``rows``."""
    total = torch.zeros((), dtype=torch.float64)
    for row, value in zip(rows, run.forward(rows), strict=True):
        if (factor := run.objective.factors[row]) is not None:
            total = total + (run.local.costs(value, run.objective.target(row)) * factor).mean()
    return total


def stack_echo(
    stack: Stack, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int, cost_at: str = "last",
    nudge: float | np.ndarray = 1e-4, scale: Mapping[str, int] | None = None, mask: np.ndarray | None = None,
) -> Found:
    """The same gradient by echoes: one backward sweep of three copies of every layer in lock-step, nothing stored.

    Copy 0 retraces and regenerates all values. Where copies + and - of a layer part, the difference of their dV/du is
    what the cost's derivative by the layer's input is; blocks hand it down through their own derivative, and what
    arrives at a layer below nudges its copies apart.

    Parameters
    ----------
    nudge
        What the cost's derivative is multiplied by, for all samples or one number for each, (batch,).
    scale
        By layer, exponents of 2 that multiply its nudges; what comes from its copies is divided by the same.
    """
    run = _Run(stack, X, Y, dt, substeps, cost_at, mask)
    with torch.no_grad():
        for _ in run.forward(range(run.rows)):
            pass
        sweep = _Sweep(run, nudge, scale)
        sweep.back()
    return {name: (g / len(run.objective.x)).numpy() for name, g in sweep.gradients.items()}, run.outputs()


def response_exponents(
    stack: Stack, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int, cost_at: str = "last",
    nudge: float | np.ndarray = 1.0, mask: np.ndarray | None = None,
) -> dict[str, int]:
    """`stack_echo`'s ``scale`` with which ``nudge`` moves the copies of every layer 2^-3 to 2^-2 apart where they
    are farthest, if layers are linear that far; 0 for layers that no cost reaches."""
    run = _Run(stack, X, Y, dt, substeps, cost_at, mask)
    with torch.no_grad():
        for _ in run.forward(range(run.rows)):
            pass
        sweep = _Sweep(run, _LINEAR * np.asarray(nudge, np.float64), None)
        sweep.back()
    return {name: round(_AIM - float(np.log2(apart / _LINEAR))) if apart else 0
            for name, apart in sweep.response.items()}


@dataclass
class _Phase:
    """Positions and momenta of all layers, (batch, *shape)."""

    q: Values
    p: Values

    @property
    def flat(self) -> list[torch.Tensor]:
        return [*self.q.values(), *self.p.values()]

    def like(self, flat: list[torch.Tensor]) -> "_Phase":
        """Of these values."""
        return _Phase(dict(zip(self.q, flat, strict=False)), dict(zip(self.p, flat[len(self.q):], strict=True)))


class _Run:
    """The forward run of a batch; ``phase`` is where it stands."""

    def __init__(self, stack: Stack, X: np.ndarray, Y: np.ndarray, dt: float, substeps: int, cost_at: str,
                 mask: np.ndarray | None):
        self.objective = Objective(stack, X, Y, cost_at, mask)
        self.local, self.dt, self.substeps = Local(stack), dt, substeps
        batch = len(self.objective.x)
        self.phase = _Phase(self.local.rest(batch), self.local.rest(batch))
        self._outputs: dict[int, torch.Tensor] = {}  # by row

    @property
    def rows(self) -> int:
        return len(self.objective.factors)

    def drift(self, phase: _Phase, dt: float) -> None:
        phase.q = {name: q + dt * self.local.velocity(name, phase.p[name]) for name, q in phase.q.items()}

    def kick(self, phase: _Phase, values: Values, dt: float) -> None:
        phase.p = {name: p - dt * self.local.force(name, phase.q[name], self.local.fed(name, values))
                   for name, p in phase.p.items()}

    def forward(self, rows: range) -> Iterator[torch.Tensor]:
        """The value of the last part at every one of ``rows``."""
        self.phase = _Phase(self.phase.q, self.phase.p)
        for row in rows:
            values: Values = {}
            for _ in range(self.substeps):
                self.drift(self.phase, self.dt)
                values = self.local.values(self.phase.q, self.objective.x[:, row])
                self.kick(self.phase, values, self.dt)
            value = values[self.local.stack.output]
            self._outputs[row] = self.local.outputs(value)
            yield value

    def outputs(self) -> np.ndarray:
        rows = [self._outputs[row] for row in range(self.rows)]
        return (rows[-1] if self.objective.last else torch.stack(rows, dim=1)).numpy()


@dataclass
class _Sweep:
    """The backward sweep from where a run ended. ``gradients`` are sums over the batch, ``response`` is the largest
    |q+ - q-| of every layer."""

    run: _Run
    nudge: float | np.ndarray
    scale: Mapping[str, int] | None
    gradients: Gradients = field(init=False)
    response: dict[str, float] = field(init=False)

    def __post_init__(self):
        local, phase = self.run.local, self.run.phase
        for name in self.scale or {}:
            if name not in local.stack.layers:
                raise CompileError(f"scale must name layers, {', '.join(local.stack.layers)}, not {name!r}")
        nudge = torch.as_tensor(np.broadcast_to(np.asarray(self.nudge, np.float64), len(self.run.objective.x)).copy())
        self._nudge = {name: nudge * 2.0 ** (self.scale or {}).get(name, 0) for name in local.stack.layers}
        self._copies = {sign: _Phase(dict(phase.q), dict(phase.p)) for sign in _SIGNS}
        self.gradients = {name: torch.zeros_like(p) for name, p in local.learned.items()}
        self.response = dict.fromkeys(local.stack.layers, 0.0)

    def back(self) -> None:
        for row in reversed(range(self.run.rows)):
            for substep in reversed(range(self.run.substeps)):
                self._step(row, asked=substep == self.run.substeps - 1)

    def _step(self, row: int, asked: bool) -> None:
        """Undo a substep; ``asked`` if the row's cost reads it."""
        run = self.run
        values = run.local.values(self._copies[0].q, run.objective.x[:, row])
        handed = self._costs(row, values) if asked else {}
        for name in reversed(run.local.stack.order):
            self._hand_down(name, values, handed)
        for sign, copy in self._copies.items():
            run.kick(copy, values, -run.dt)
            for name in handed.keys() & copy.p.keys():
                copy.p[name] = copy.p[name] - sign * _by_sample(self._nudge[name], copy.p[name]) * handed[name]
        self._masses()
        for copy in self._copies.values():
            run.drift(copy, -run.dt)

    def _costs(self, row: int, values: Values) -> Values:
        """The cost's derivative by the last part."""
        objective, last = self.run.objective, self.run.local.stack.output
        if (factor := objective.factors[row]) is None:
            return {}
        by_value, found = self.run.local.cost(values[last], objective.target(row), factor)
        self._learn(found)
        return {last: by_value}

    def _hand_down(self, name: str, values: Values, handed: Values) -> None:
        """What the sources of one part get through it: everything that uses it has handed down to it before."""
        local = self.run.local
        if name in local.stack.layers:
            up, down = self._copies[1].q[name], self._copies[-1].q[name]
            self.response[name] = max(self.response[name], float((up - down).abs().max()))
            given, found = local.contrast(name, up, down, local.fed(name, values), self._weight(name))
            source, = local.stack.wires[name]
            by_source = {source: given.reshape(values[source].shape)}
        elif name in handed:
            by_source, found = local.pulled(name, values, handed[name])
        else:
            return
        self._learn(found)
        for source, given in by_source.items():
            handed[source] = handed[source] + given if source in handed else given

    def _masses(self) -> None:
        for name in self.run.local.stack.layers:
            up, down = self._copies[1].p[name], self._copies[-1].p[name]
            self._learn(self.run.local.kinetic_contrast(name, up, down, self._weight(name)))

    def _weight(self, layer: str) -> torch.Tensor:
        """By which a contrast of the layer's copies is the derivative of the cost, (batch,)."""
        return -self.run.dt / (2 * self._nudge[layer])

    def _learn(self, found: Gradients) -> None:
        for name, gradient in found.items():
            self.gradients[name] += gradient


def _by_sample(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, *[1] * (like.ndim - 1))
