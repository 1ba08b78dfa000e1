"""The limit of no nudge, from gradients at several nudges, each half of the one before.

A strong nudge leaves the linear response (errors grow with its square, then its 4th power), a weak one drowns in the
rounding of the states (error over nudge). Four nudges give an estimate without the square and the 4th power that keeps
as little rounding as possible, three one without the square alone, with less rounding, and two their mean. Neighbouring
estimates agree best where both errors are small; that needs no reference.
"""

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["MOST", "Gradient", "Kind", "agreement", "chosen", "closest", "limit", "limits"]

Gradient = dict[str, np.ndarray]
Kind = np.ndarray  # weights of a nudge, half of it, a quarter ..


def _kind(nudges: int, powers: int) -> Kind:
    """Weights that sum to 1, cancel ``powers`` even powers, and pass on the least rounding."""
    sizes = 2.0 ** -np.arange(nudges)
    conditions = sizes ** (2 * np.arange(powers + 1)[:, None])
    noise = np.diag(sizes**-2)
    inverse = np.linalg.inv(noise) @ conditions.T
    return inverse @ np.linalg.inv(conditions @ inverse)[:, 0]


_KINDS = _kind(4, 2), _kind(3, 1), _kind(2, 0)
MOST = len(_KINDS[0])
_BELOW = 3  # halvings of the nudge within which weaker estimates are asked
_APART = 14.0  # times the square of how wrong they may be, which they must be away to be heard


def limit(found: Mapping[int, np.ndarray], weaker: int, kind: Kind) -> np.ndarray:
    """Of one parameter, from the nudge 2^-``weaker`` of the usual and those below it; of fewer their mean, if ``found``
    has no more, and else what is next to them."""
    run = [found[weaker + i] for i in range(len(kind)) if all(weaker + k in found for k in range(i + 1))]
    if not run:
        return found[min(found, key=lambda w: abs(w - weaker))]
    return np.tensordot(kind if len(run) == len(kind) else _kind(len(run), 0), run, 1)


def limits(found: Mapping[int, Gradient], weaker: int, kind: Kind) -> Gradient:
    """Of all parameters."""
    return {name: limit({w: g[name] for w, g in found.items()}, weaker, kind) for name in next(iter(found.values()))}


def agreement(found: Mapping[int, Gradient], weaker: int, kind: Kind = _KINDS[0]) -> float:
    """How far apart two neighbouring estimates are."""
    return _apart(limits(found, weaker, kind), limits(found, weaker + 1, kind))


def closest(found: Mapping[int, Gradient]) -> tuple[int, Kind, float]:
    """The estimate of all parameters that agrees best with the next weaker one, and how far they are apart."""
    every = {(w, k): agreement(found, w, kind)
             for k, kind in enumerate(_KINDS) for w in found if _whole(found, w, len(kind) + 1)}
    if not every:
        return min(found), _kind(len(found), 0), np.inf
    weaker, k = min(every, key=every.__getitem__)
    return weaker, _KINDS[k], every[weaker, k]


def chosen(runs: Mapping[int, Sequence[np.ndarray]]) -> tuple[int, Kind]:
    """The estimate of one parameter from as many runs of every nudge, rounded otherwise each time.

    The one with the least square of what runs leave of it and of what the next weaker one is away, if weaker ones do
    not tell otherwise: where nudges reach beyond a kink, all of them agree that are equally wrong."""
    every = [(*_estimate(runs, w, kind), w, kind)
             for kind in _KINDS for w in runs if _whole(runs, w, len(kind) + 1)]
    for error, found, weaker, kind in sorted(every, key=lambda estimate: estimate[0]):
        below = [(e, f) for e, f, w, _ in every if weaker < w <= weaker + _BELOW]
        if all(float(np.sum((found - f) ** 2)) <= _APART * e + error for e, f in below):
            return weaker, kind
    return min(runs), _kind(len(runs), 0)


def _estimate(runs: Mapping[int, Sequence[np.ndarray]], weaker: int, kind: Kind) -> tuple[float, np.ndarray]:
    """The mean of an estimate over the runs, and the square of how wrong it may be."""
    single = [dict(zip(runs, run, strict=True)) for run in zip(*runs.values(), strict=True)]
    here, below = (np.array([limit(found, w, kind) for found in single]) for w in (weaker, weaker + 1))
    noise = here.var(axis=0, ddof=1).sum() / len(here) if len(here) > 1 else 0.0
    return float(noise + ((here - below).mean(axis=0) ** 2).sum()), here.mean(axis=0)


def _whole(found: Mapping[int, object], weaker: int, nudges: int) -> bool:
    return all(weaker + i in found for i in range(nudges))


def _apart(a: Gradient, b: Gradient) -> float:
    """1 - cosine of the concatenated gradients, or a tenth of that of a parameter with at least 1 % of the norm."""
    total = float(np.sqrt(sum(np.sum(g**2) for g in a.values())))
    heavy = [name for name, g in a.items() if g.size > 1 and np.linalg.norm(g) >= 0.01 * total]
    whole = _angle(*(np.concatenate([g[name].ravel() for name in a]) for g in (a, b)))
    return max([whole] + [_angle(a[name].ravel(), b[name].ravel()) / 10 for name in heavy])


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return 1.0 - float(a @ b) / norms if norms else 0.0
