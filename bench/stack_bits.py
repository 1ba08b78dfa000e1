"""How many bits the echo of a stack needs: layers in integers against float64 BPTT by the same weights. Minutes.

    python -m echolith.bench.stack_bits

Cosines are the least of all layers, and of all blocks, one for the parameters of a part together. Gates: .9999 for two
blocks, .999 for six, and copy 0 back bit for bit with no state out of its range.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from echolith.bench.stack_integers import Bits, IntegerEcho
from echolith.bench.stack_nets import INPUTS, KINDS, OUTPUTS, Blocks, Chain
from echolith.compiler.stack import Stack
from echolith.compiler.stacked import response_exponents, stack_bptt
from echolith.host.cli_report import table

__all__ = ["Case", "Found", "cosines", "main"]

_DT, _SUBSTEPS, _BATCH = 0.25, 2, 8
_GATES = {2: 0.9999, 6: 0.999}  # by blocks
_SETTINGS = {  # what differs from Bits(), and how many powers of two responses are larger
    "as above": (Bits(), 0), "responses / 4": (Bits(), -2), "responses / 2": (Bits(), -1),
    "responses x 2": (Bits(), 1), "responses x 4": (Bits(), 2),
    "state 12": (Bits(state=12), 0), "state 13": (Bits(state=13), 0), "state 16 of 20": (Bits(state=16, width=20), 0),
    "handed 10": (Bits(handed=10), 0), "handed 12": (Bits(handed=12), 0), "handed 14": (Bits(handed=14), 0),
    "handed 17, clips": (Bits(handed=17), 0), "nudge rounded twice": (Bits(once=False), 0),
    "value 10": (Bits(value=10), 0), "z 10, t 10": (Bits(z=10, t=10), 0),
}


@dataclass(frozen=True)
class Found:
    """``parts`` are cosines by part; ``responses`` log2 of the least and largest of all layers."""

    parts: Mapping[str, float]
    layers: tuple[str, ...]
    responses: tuple[float, float]
    exact: bool
    wrapped: bool

    @property
    def layer(self) -> float:
        return min(self.parts[name] for name in self.layers)

    @property
    def block(self) -> float:
        return min(cosine for name, cosine in self.parts.items() if name not in self.layers)


class Case:
    """A network and a batch of it, with BPTT's gradient."""

    def __init__(self, net: Stack, steps: int, cost_at: str):
        self.net, self.cost_at = net, cost_at
        self.x, self.y = _samples(steps // _SUBSTEPS, cost_at)
        self._expected, _ = stack_bptt(self.net, self.x, self.y, _DT, _SUBSTEPS, cost_at)
        self._scale: dict[str, int] = {}

    def run(self, bits: Bits, larger: int = 0, alike: bool = False) -> Found:
        """With responses ``larger`` powers of two above `response_exponents`'s; ``alike``: all layers with the exponent
        of the last."""
        def scale(nudge: np.ndarray) -> dict[str, int]:
            own = self._exponents(nudge)
            return {name: own[self.net.layers[-1]] if alike else e + larger for name, e in own.items()}

        echo = IntegerEcho(self.net, self.x, self.y, _DT, _SUBSTEPS, self.cost_at, bits, scale)
        parted = np.log2(np.maximum(list(echo.response.values()), 2.0**-bits.state))
        return Found(cosines(echo.gradients, self._expected), self.net.layers, (parted.min(), parted.max()),
                     echo.returned, echo.wrapped)

    def _exponents(self, nudge: np.ndarray) -> Mapping[str, int]:
        self._scale = self._scale or response_exponents(
            self.net, self.x, self.y, _DT, _SUBSTEPS, self.cost_at, nudge)
        return self._scale


def _samples(rows: int, cost_at: str) -> tuple[np.ndarray, np.ndarray]:
    """Smooth inputs (batch, rows, INPUTS) in steps of 2^-7 and class numbers."""
    rng = np.random.default_rng(0)
    x = np.tanh(0.3 * np.cumsum(rng.normal(size=(_BATCH, rows, INPUTS)), axis=1))
    classes = rng.integers(OUTPUTS, size=_BATCH if cost_at == "last" else (_BATCH, rows))
    return np.round(x * 2**7) / 2**7, classes


def cosines(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Between two gradients, by part."""
    parts: dict[str, list[str]] = {}
    for name in expected:
        parts.setdefault(name.partition(".")[0], []).append(name)
    flat = {part: [np.concatenate([g[name].ravel() for name in names]) for g in (found, expected)]
            for part, names in parts.items()}
    return {part: float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300)) for part, (a, b) in flat.items()}


def _shown(blocks: int, found: Found) -> list[str]:
    fine = found.exact and not found.wrapped and min(found.layer, found.block) >= _GATES[blocks]
    low, high = found.responses
    return [f"{found.layer:.6f}", f"{found.block:.6f}", f"2^{low:.1f} .. 2^{high:.1f}", "yes" if found.exact else "NO",
            "yes" if fine else "NO"]


def _cases() -> Iterator[list[str]]:
    for kind in KINDS:
        for blocks in _GATES:
            for steps in (32, 128):
                for cost_at in ("last", "every", "mean"):
                    found = Case(Blocks(kind, blocks), steps, cost_at).run(Bits())
                    yield [kind, str(blocks), str(steps), cost_at, *_shown(blocks, found)]


def _settings() -> Iterator[list[str]]:
    for kind, blocks in (("dense", 2), ("dense", 6), ("linear", 6)):
        case = Case(Blocks(kind, blocks), 128, "last")
        for name, (bits, larger) in _SETTINGS.items():
            yield [kind, str(blocks), name, *_shown(blocks, case.run(bits, larger))]


def _chains() -> Iterator[list[str]]:
    for kind, layers, gain in (("dense", 6, 1.0), ("dense", 6, 0.25), ("linear", 6, 0.25)):
        case = Case(Chain(kind, layers, gain), 128, "last")
        for name, found in (("own", case.run(Bits())), ("own, x 2", case.run(Bits(), 1)),
                            ("one for all", case.run(Bits(), alike=True))):
            yield [kind, str(layers), f"{gain:g}", name, *_shown(layers, found)]


def main() -> None:
    torch.set_num_threads(1)
    heads = ["cosine, layers", "parts between", "responses", "returned", "within gates"]
    print(f"{Bits()}, dt = {_DT}")
    print(table([["layer", "blocks", "steps", "cost at", *heads], *_cases()]))
    print("\n128 steps, the cost at the last, and one setting changed:")
    print(table([["layer", "blocks", "setting", *heads], *_settings()]))
    print("\n128 steps, the cost at the last, chains without skips, exponents of layers:")
    print(table([["layer", "layers", "gain", "exponents", *heads], *_chains()]))


if __name__ == "__main__":
    main()
