"""How well a design computes: its integers against float64 on the same samples. numpy only."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from echolith.compiler.design import Design
from echolith.host.session import Session, open_design
from echolith.sim import adjoint

__all__ = ["cosine", "gradient_cosine", "prediction_loss", "session"]

Values = Mapping[str, np.ndarray]


def session(design: Design, values: Values) -> Session:
    """The integer model with these parameters, for inputs as the chip reads them."""
    opened = open_design(replace(design, damping=None))
    opened.set_values({**design.values, **values})
    return opened


def cosine(a: Values, b: Values) -> float:
    """Between two gradients of the same parameters, each as one vector; 0 if one of them is."""
    x, y = (np.concatenate([np.ravel(g[name]) for name in b]) for g in (a, b))
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else 0.0


def gradient_cosine(design: Design, values: Values, x: np.ndarray, y: np.ndarray) -> float:
    """Between `Session.gradient` and the float64 gradient; ``x`` is (samples, rows, inputs), ``y`` (samples,
    read-outs, outputs), NaN where there is no target."""
    with session(design, values) as chip:
        exact = adjoint.gradient(design, chip.values(), x, y)
        return cosine(chip.gradient(x, *_given(design, y)), exact)


def _given(design: Design, y: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Targets and mask as the user gives them."""
    there, found = np.where(np.isnan(y), 0.0, 1.0), np.nan_to_num(y)
    if design.cost and design.cost.targets == "classes":
        there, found = there.min(-1), found.argmax(-1)
    if design.dynamics.cost_at != "every":
        there, found = there[:, 0], found[:, 0]
    return found, None if there.all() else there


def prediction_loss(design: Design, values: Values, x: np.ndarray, y: np.ndarray | None) -> float:
    """Points of accuracy that the integers lose against float64; where the targets are not one of several classes,
    the root mean square difference of the outputs in percent of theirs."""
    with session(design, values) as chip:
        found, exact = chip.predict(x), adjoint.outputs(design, values, x)
    there = None if y is None else np.asarray(~np.isnan(y).any(-1))
    if y is not None and there is not None and there.any() and _classes(y[there]):
        right = [(a.reshape(y.shape)[there].argmax(-1) == y[there].argmax(-1)).mean() for a in (exact, found)]
        return 100.0 * float(right[0] - right[1])
    scale = float(np.sqrt(np.mean(exact**2)))
    return 100.0 * float(np.sqrt(np.mean((found - exact) ** 2))) / scale if scale else 0.0


def _classes(y: np.ndarray) -> bool:
    """Whether every target is one-hot."""
    return y.shape[-1] > 1 and bool(np.isin(y, (0, 1)).all() and (y.sum(-1) == 1).all())
