"""The picture of a precision report: boxes of magnitudes over the formats, cosines against nudge and word length."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from echolith.host.precision import PrecisionReport

__all__ = ["draw"]

_EXACT = 1e-9  # 1 - cosine drawn for what is closer


def draw(report: "PrecisionReport", path: Path) -> None:
    """Write the picture; the path's suffix names the format."""
    figure = Figure(figsize=(12, 1.5 + max(3.5, 0.28 * len(report.tensors))), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    _boxes(left, report)
    _cosines(middle, "nudge, halvings of the usual one", report.by_nudge)
    _cosines(right, "fraction bits of the states", report.by_bits)
    limit = f"{report.longest:,.0f}" if math.isfinite(report.longest) else "any number of"
    figure.suptitle(f"perturbations grow by {math.exp(report.growth):.4f} a step: good for {limit} steps, used "
                    f"{report.steps}")
    figure.savefig(path, dpi=120)


def _boxes(axes: Axes, report: "PrecisionReport") -> None:
    """Magnitudes of every tensor, and its format in grey, from the last place to the limit."""
    tensors = [t for t in reversed(report.tensors) if t.magnitudes[4] > 0]
    places = list(range(len(tensors)))
    axes.barh(places, [t.limit - t.step for t in tensors], left=[t.step for t in tensors], color="0.88", height=0.8)
    keys = ("whislo", "q1", "med", "q3", "whishi")
    stats = [{**dict(zip(keys, t.magnitudes, strict=True)), "fliers": [], "label": t.name} for t in tensors]
    axes.bxp(stats, positions=places, orientation="horizontal", showfliers=False, widths=0.5)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="magnitude", title="seen (boxes) and representable (grey)")


def _cosines(axes: Axes, label: str, cosines: dict[int, float]) -> None:
    axes.semilogy(list(cosines), [max(1 - c, _EXACT) for c in cosines.values()], "o-")
    axes.set(xlabel=label, ylabel="1 - cosine of the gradient")
    axes.grid(alpha=0.3)
