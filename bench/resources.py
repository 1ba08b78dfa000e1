"""Fits the resource model to the stored builds of bench/builds.py and writes it to compiler/resources.json.

    .venv/bin/python bench/resources.py

Coefficients are not negative and minimise the sum of squared relative errors over the builds that are not held out. The
error stated is the largest of any build of the family. Printed are all errors, and every build's if it alone were left
out.
"""

import json

import numpy as np
from builds import HELD_OUT, RESULTS
from scipy.optimize import nnls

from echolith.boards.catalog import board
from echolith.compiler.design import Hardware
from echolith.compiler.files import typed
from echolith.compiler.inventory import copies
from echolith.compiler.resources import MODEL, features

_PARTS = {
    "lut": ("core", "learning", "general", "overlap", "paired", "lane sums", "lane updates", "vector updates",
            "small memories", "joined memories", "operations", "choice", "lone registers"),
    "ff": ("core", "learning", "general", "overlap", "paired", "lane sums", "lane updates", "vector updates",
           "small words", "registers", "products"),
}


def main() -> None:
    builds = {name: row | {"board": board(row["board"]), "hardware": typed(Hardware, row["hardware"])}
              for name, row in json.loads(RESULTS.read_text()).items()}
    MODEL.write_text(json.dumps({kind: _fitted(builds, kind) for kind in _PARTS}, indent=1) + "\n")


def _fitted(builds: dict[str, dict], kind: str) -> dict:
    found = [features(row["hardware"], row["board"]) for row in builds.values()]
    x = np.array([[float(f[part]) for part in _PARTS[kind]] for f in found])
    y = np.array([float(row[kind]) for row in builds.values()])
    kept = np.array([name not in HELD_OUT for name in builds])
    known = np.array([float(copies(row["hardware"]) if kind == "ff" else 0) for row in builds.values()])
    coefficients = _fit(x[kept], y[kept], known[kept])
    error = (x @ coefficients + known) / y - 1
    alone = [(x[i] @ _fit(*(np.delete(part, i, 0) for part in (x, y, known))) + known[i]) / y[i] - 1
             for i in range(len(y))]
    print(f"{kind}: {', '.join(f'{p} {c:.3g}' for p, c in zip(_PARTS[kind], coefficients, strict=True))}")
    for name, counted, e, a in zip(builds, y, error, alone, strict=True):
        held = "held out" if name in HELD_OUT else ""
        print(f"  {name:<18}{counted:7.0f} {100 * e:+6.1f} % {held:<8} {100 * a:+6.1f} % alone")
    worst = {}
    for family in ("ecp5", "ice40"):
        mine = np.array([row["board"].family == family for row in builds.values()])
        worst[family] = float(np.abs(error[mine]).max())
        print(f"  {family}: largest error held out {100 * np.abs(error[mine & ~kept]).max():.1f} %, "
              f"fitted {100 * np.abs(error[mine & kept]).max():.1f} %")
    return {"error": {family: round(e, 4) for family, e in worst.items()},
            "fitted": sorted(n for n, k in zip(builds, kept, strict=True) if k),
            "coefficients": {p: round(float(c), 4) for p, c in zip(_PARTS[kind], coefficients, strict=True) if c > 0}}


def _fit(x: np.ndarray, y: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Coefficients of what is not ``known``, by relative errors of ``y``."""
    return nnls(x / y[:, None], 1 - known / y)[0]


if __name__ == "__main__":
    main()
