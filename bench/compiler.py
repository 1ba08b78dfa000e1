"""How compile time and memory grow with the number of weights. Prints JSON.

    .venv/bin/python bench/compiler.py [units ...]
"""

import json
import resource
import subprocess
import sys
import time

import numpy as np

__all__ = ["main", "measure"]

_UNITS = (64, 128, 256, 512, 1024)


def measure(units: int) -> dict:
    """One square network with ``units`` units and rows, untrained, compiled for learning on 64 lanes."""
    import torch
    from torch import nn

    import echolith as el

    class Net(nn.Module):
        states, inputs, outputs = {"q": units}, 8, 10

        def __init__(self):
            super().__init__()
            self.W, self.B, self.C = nn.Linear(units, units, bias=False), nn.Linear(8, units), nn.Linear(units, 10)

        def energy(self, q, u):
            return 0.5 * (q @ q) + torch.log(torch.cosh(self.W(q) + self.B(u))).sum()

        def cost(self, q, y):
            return nn.functional.mse_loss(self.C(q), y)

    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, generator = Net(), np.random.default_rng(0)
    x, y = generator.uniform(-1, 1, (32, 8, 8)), generator.uniform(-1, 1, (32, 10))
    begun = time.perf_counter()
    design = el.compile(net, dynamics=el.Leapfrog(0.25, 2), rule=el.HamiltonianEcho("last"), calibrate=(x, y), lanes=64)
    compiled = time.perf_counter()
    design.estimate()
    return {"weights": sum(p.numel() for p in net.parameters()), "compile_seconds": compiled - begun,
            "estimate_seconds": time.perf_counter() - compiled,
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def main(sizes: list[int]) -> None:
    """Every size in a process of its own, so that memory is its own too."""
    rows = []
    for units in sizes:
        command = [sys.executable, __file__, "--one", str(units)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"units": units, **json.loads(found.stdout)})
        print(rows[-1], file=sys.stderr)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main([int(a) for a in sys.argv[1:]] or list(_UNITS))
