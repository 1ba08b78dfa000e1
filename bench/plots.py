"""Pictures of the figures, as .png and .svg."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from echolith.bench.figure import Row

__all__ = ["draw"]


def draw(figures: Mapping[str, list[Row]], folder: Path) -> list[Path]:
    """A picture of every figure that has one and rows; returns what was written."""
    written = []
    for name, rows in figures.items():
        if name not in _PICTURES or not rows:
            continue
        figure = Figure(figsize=(10, 4), layout="constrained")
        FigureCanvasAgg(figure)
        _PICTURES[name](figure, rows)
        for path in (folder / f"{name}.png", folder / f"{name}.svg"):
            figure.savefig(path, dpi=120)
            written.append(path)
    return written


def _lines(axes: Axes, rows: Iterable[Row], name: Callable[[Row], str], x: Callable[[Row], float],
           y: Callable[[Row], float]) -> None:
    """A line per name."""
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append((x(row), y(row)))
    for label, points in groups.items():
        axes.plot(*zip(*sorted(points), strict=True), "o-", label=label)
    axes.set_xscale("log", base=2)
    axes.grid(alpha=0.3)
    axes.legend()


def _cycles(figure: Figure, rows: list[Row]) -> None:
    left, right = figure.subplots(1, 2)

    def name(r: Row) -> str:
        return f"{r['units']} units, cost at {r['cost_at']}"

    _lines(left, rows, name, lambda r: r["lanes"], lambda r: r["cycles_per_learned_sample"])
    left.set(xlabel="lanes", ylabel="cycles a learned sample", yscale="log")
    _lines(right, rows, name, lambda r: r["lanes"], lambda r: r["mac_utilisation"])
    right.set(xlabel="lanes", ylabel="useful MACs", ylim=(0, 1))


def _area(figure: Figure, rows: list[Row]) -> None:
    left, right = figure.subplots(1, 2)
    for board in dict.fromkeys(r["board"] for r in rows):
        own = [r for r in rows if r["board"] == board]
        points = [(r["lanes"], mhz) for r in own for mhz in r["fmax_mhz"]["each"]]
        left.plot(*zip(*points, strict=True), "o", alpha=0.5, label=board)
        left.plot([r["lanes"] for r in own], [r["fmax_mhz"]["median"] for r in own], "_", color="black", markersize=14)
    left.set(xlabel="lanes", ylabel="MHz of every seed, and median")
    left.set_xscale("log", base=2)
    left.legend()
    _lines(right, rows, lambda r: r["board"], lambda r: r["lanes"], lambda r: r["used"]["lut"] / r["available"]["lut"])
    right.set(xlabel="lanes", ylabel="logic cells of those available", ylim=(0, 1.05))


def _speed(figure: Figure, rows: list[Row]) -> None:
    axes = figure.subplots()
    for units in dict.fromkeys(r["units"] for r in rows):
        own = [r for r in rows if r["units"] == units]
        torch = own[0]["torch"]
        [line] = axes.plot(list(map(int, torch)), [t["median"] for t in torch.values()], "o-",
                           label=f"torch, {units} units")
        for r in own:
            axes.axhline(r["samples_per_second"], color=line.get_color(), linestyle="--", linewidth=0.8)
            axes.annotate(f"{units} units, {r['lanes']} lanes, {r['clock_mhz']:.0f} MHz",
                          (max(map(int, torch)), r["samples_per_second"]), fontsize=7, ha="right", va="bottom")
    axes.set(xlabel="batch", ylabel="learned samples per second", xscale="log", yscale="log")
    axes.legend()


def _link(figure: Figure, rows: list[Row]) -> None:
    axes = figure.subplots()
    for key, text in (("chip", "core"), ("held", "samples held"), ("link", "samples sent")):
        _lines(axes, rows, lambda r, text=text: f"{r['units']} units, {r['lanes']} lanes, {text}", lambda r: r["baud"],
               lambda r, key=key: r["samples_per_second"]["learn"][key])
    axes.set(xlabel="baud", ylabel="learned samples per second", yscale="log")


def _growth(figure: Figure, rows: list[Row]) -> None:
    parts = (("cycles_per_learned_sample", "cycles a learned sample"), ("chip_memory_bits", "bits of chip memory"),
             ("compile_seconds", "CPU seconds to compile"))
    base = [max(set(values), key=values.count) for values in ([r[k] for r in rows] for k in ("units", "lanes", "rows"))]
    for axes, (key, label) in zip(figure.subplots(1, len(parts)), parts, strict=True):
        for index, axis in enumerate(("units", "lanes", "rows")):
            own = [r for r in rows if all(r[k] == base[i] for i, k in enumerate(("units", "lanes", "rows"))
                                          if i != index)]
            if len(own) > 1:
                _lines(axes, own, lambda r, axis=axis: axis, lambda r, axis=axis: r[axis], lambda r, key=key: r[key])
        axes.set(xlabel="units, lanes or input rows", ylabel=label, yscale="log")


_PICTURES: dict[str, Callable[[Figure, list[Row]], None]] = {
    "cycles": _cycles, "area": _area, "speed": _speed, "link": _link, "growth": _growth,
}
