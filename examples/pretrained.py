"""Train in PyTorch, predict on the chip: weights go through a safetensors file into a core that only infers.

    python -m echolith.examples.pretrained build/digits.safetensors
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import echolith as el
from echolith.examples.digits import BATCH, DT, SUBSTEPS, Digits, data, small, split

__all__ = ["compare", "main", "outputs", "train"]

_EPOCHS = 5
_RATE = 0.01  # of Adam


def outputs(net: Digits, x: torch.Tensor) -> torch.Tensor:
    """Logits (batch, 10) after the leapfrog through (batch, rows, 8)."""
    force = torch.func.vmap(torch.func.grad(net.energy))
    q = p = torch.zeros(len(x), net.states["q"])
    for row in range(x.shape[1]):
        for _ in range(SUBSTEPS):
            q = q + DT * p
            p = p - DT * force(q, x[:, row])
    return net.predict(q)


def train(net: Digits, epochs: int = _EPOCHS) -> None:
    """Plain PyTorch: Adam through the unrolled leapfrog."""
    x, y = (torch.as_tensor(a, dtype=torch.float32) for a in data())
    optimiser = torch.optim.Adam(net.parameters(), _RATE)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=order).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(outputs(net, x[batch]), y[batch]).backward()
            optimiser.step()


def compare(path: Path) -> dict[str, float]:
    """Test accuracy, in percent, of the weights in ``path``: in float32 and in the integers of a compiled core."""
    net = small()
    net.load_state_dict(load_file(path))
    x, _ = data()
    design = el.compile(net, dynamics=el.Leapfrog(DT, SUBSTEPS), rule=None, calibrate=(x, None), lanes=4)
    _, _, test, labels = split()
    with torch.no_grad():
        exact = outputs(net, torch.as_tensor(test, dtype=torch.float32)).numpy()
    with design.open("int:") as chip:
        found = chip.predict(test)
    return {name: 100.0 * float(np.mean(y.argmax(1) == labels)) for name, y in (("float", exact), ("chip", found))}


def main(path: Path) -> None:
    net = small()
    train(net)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), path)
    found = compare(path)
    print(f"test accuracy: float {found['float']:.2f} %, chip {found['chip']:.2f} %, "
          f"{found['float'] - found['chip']:.2f} points lost")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/digits.safetensors"))
