"""Stacks that nobody chose: their gradients beside float64, untrained and after twenty epochs on the chip.

    python -m echolith.bench.stack_random [seed ..]      # 20 to 60 seconds a seed

Two or three layers of random sizes and energies, blocks of random kinds and wires between them, random costs, rows,
substeps, dt and lanes, all drawn from the seed. 1 - cosine of `Session.gradient`'s of all parameters, and the largest
of a single parameter that has 1 % of the norm. Growth is that of a perturbation in a sample: echoes that grow further
than states reach cannot tell what a nudge does.
"""

import sys
from contextlib import suppress

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import echolith as el
from echolith.compiler.errors import RangeError
from echolith.compiler.reference import bptt
from echolith.sim.growth import growth

__all__ = ["Problem", "main", "measured"]

_SAMPLES, _SHARE = 24, 0.01
_LEARNING = dict(epochs=20, batch_size=8, learning_rate=0.1, momentum=0.9)
_SEEDS = (201, 203, 207, 211, 212, 216, 217, 218)

Draws = np.random.Generator


class _Layer(nn.Module):
    """One of five energies, with masses that learn in one of four."""

    def __init__(self, inputs: int, units: int, draws: Draws):
        super().__init__()
        self.states, self.inputs = {"q": units}, inputs
        rows, self.kind = int(draws.integers(3, 9)), int(draws.integers(5))
        self.W = nn.Linear(units, rows, bias=bool(draws.integers(2)))
        self.B = nn.Linear(inputs, rows, bias=bool(draws.integers(2)))
        self.a, self.quartic = nn.Parameter(torch.rand(units) + 0.5), float(draws.uniform(0, 0.1))
        self.heavy = bool(draws.integers(4) == 0)
        if self.heavy:
            self.m = nn.Parameter(torch.rand(units) + 0.7)
        if self.kind == 3:
            self.P = nn.Linear(inputs, units)

    def energy(self, q, u):
        spring, quartic = 0.5 * (self.a * q * q).sum(), self.quartic * (q**4).sum()
        if self.kind == 3:
            return spring - (q * self.P(u)).sum() + quartic
        z = self.W(q) + self.B(u)
        if self.kind == 0:
            return spring + torch.log(torch.cosh(z)).sum()
        if self.kind == 1:
            return spring + quartic + F.softplus(z).sum()
        if self.kind == 2:
            return spring + 0.5 * (torch.tanh(z) ** 2).sum()
        return 0.4 * (q * q).sum() + torch.sqrt(1 + z * z).sum()

    def kinetic(self, p):
        return 0.5 * (p * p / self.m).sum() if self.heavy else 0.5 * (p * p).sum()


class _Block(nn.Module):
    """One of six functions of all that it is given."""

    def __init__(self, inputs: list[int], outputs: int, draws: Draws):
        super().__init__()
        self.kind = int(draws.integers(6))
        self.L = nn.ModuleList([nn.Linear(n, outputs, bias=bool(draws.integers(2))) for n in inputs])
        self.G = nn.Linear(inputs[0], outputs)
        self.v = nn.Parameter(torch.rand(outputs) + 0.5)

    def forward(self, *x):
        z = sum(linear(v) for linear, v in zip(self.L, x, strict=True))
        gate = self.G(x[0])
        return (torch.tanh(z), F.gelu(z), z * torch.sigmoid(gate), F.silu(z) + gate, self.v * torch.tanh(z),
                F.softplus(z) * torch.tanh(gate))[self.kind]


class _Net(el.Stack):
    def __init__(self, draws: Draws):
        inputs, outputs, layers = int(draws.integers(1, 5)), int(draws.integers(1, 5)), int(draws.integers(2, 4))
        parts, wires, widths, last = {}, {}, {"u": inputs}, "u"

        def add(name: str, part: nn.Module, sources: list[str], width: int) -> str:
            parts[name], wires[name], widths[name] = part, tuple(sources), width
            return name

        if draws.integers(2):
            width = int(draws.integers(3, 8))
            part = _Block([inputs], width, draws) if draws.integers(2) else nn.Linear(inputs, width)
            last = add("enc", part, ["u"], width)
        for k in range(layers):
            units, before = int(draws.integers(3, 10)), last
            last = add(f"l{k}", _Layer(widths[before], units, draws), [before], units)
            if k < layers - 1 and draws.integers(3):
                sources = [last, before] if before != "u" and draws.integers(2) else [last]
                width = int(draws.integers(3, 9))
                last = add(f"b{k}", _Block([widths[s] for s in sources], width, draws), sources, width)
        super().__init__(parts, wires, inputs=inputs)
        self.outputs, self.C, self.kind = outputs, nn.Linear(widths[last], outputs), int(draws.integers(3))

    def predict(self, q):
        return self.C(q)

    def cost(self, q, y):
        z = self.C(q)
        if self.kind == 0:
            return 0.5 * ((z - y) ** 2).sum()
        if self.kind == 1:
            return F.binary_cross_entropy_with_logits(z, y, reduction="sum")
        return F.smooth_l1_loss(z, y, reduction="sum")


class Problem:
    """A network, its data and how it is compiled, from a seed."""

    def __init__(self, seed: int):
        draws = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.net = _Net(draws)
        rows, substeps = int(draws.integers(3, 40)), int(draws.integers(1, 3))
        self.cost_at = str(draws.choice(["last", "every", "mean"]))
        self.x = draws.uniform(-1, 1, (_SAMPLES, rows, self.net.inputs))
        outputs = (_SAMPLES, self.net.outputs) if self.cost_at == "last" else (_SAMPLES, rows, self.net.outputs)
        self.y = draws.uniform(-0.5, 0.5, outputs)
        if self.net.kind == 1:
            self.y = (self.y > 0).astype(np.float64)
        lanes = int(draws.choice([2, 4, 8]))
        self.dynamics = el.Leapfrog(float(draws.choice([0.1, 0.2, 0.25])), substeps)
        self.design = el.compile(self.net, dynamics=self.dynamics, rule=el.HamiltonianEcho(self.cost_at), lanes=lanes,
                                 calibrate=(self.x, self.y))

    def figures(self, chip: el.Session) -> tuple[float, float, str, float]:
        """1 - cosine of all, the largest of one parameter, its name, and how far a perturbation grows."""
        design, values = self.design, chip.state_dict()
        self.net.double().load_state_dict({name: torch.from_numpy(v) for name, v in values.items()})
        exact = np.round(self.x * 2.0 ** design.fractions["input"]) * 2.0 ** -design.fractions["input"]
        expected = bptt(self.net, exact, self.y, self.dynamics.dt, self.dynamics.substeps, self.cost_at)[0]
        found = chip.gradient(self.x, self.y)
        whole = _apart(*(np.concatenate([g[n].ravel() for n in expected]) for g in (found, expected)))
        least = _SHARE * np.sqrt(sum((g**2).sum() for g in expected.values()))
        each = {n: _apart(found[n], g) for n, g in expected.items() if g.size > 1 and np.linalg.norm(g) >= least}
        worst = max(each, key=each.__getitem__)
        steps = design.dynamics.steps * design.dynamics.substeps
        return whole, each[worst], worst, float(np.exp(growth(design, chip.values(), exact) * steps))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))


def measured(seed: int) -> list[tuple[str, float, float, str, float]]:
    """(untrained or trained, `Problem.figures`); nothing trained where a state leaves its range."""
    problem = Problem(seed)
    with problem.design.open("int:") as chip:
        rows = [("untrained", *problem.figures(chip))]
        with suppress(RangeError):  # then there is no trained network
            chip.fit(problem.x, problem.y, **_LEARNING)
            rows.append(("trained", *problem.figures(chip)))
    return rows


def main(seeds: tuple[int, ...] = _SEEDS) -> None:
    torch.set_num_threads(1)
    print("seed             all      worst    of                  growth")
    for seed in seeds:
        for when, whole, least, name, grown in measured(seed):
            print(f"{seed:<5} {when:<10} {whole:.1e}  {least:.1e}  {name:<18}  {grown:.3g}", flush=True)


if __name__ == "__main__":
    main(*[tuple(map(int, sys.argv[1:]))] if len(sys.argv) > 1 else ())
