"""The verbs that run something: a simulation, a build, a fit, a comparison."""

import contextlib
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from echolith.compiler.cycles import cycles
from echolith.compiler.errors import LinkError, RangeError
from echolith.compiler.paths import writable
from echolith.compiler.plain import plain
from echolith.host.arrays import inputs
from echolith.host.cli_input import Job
from echolith.host.cli_output import Result, bar, spin
from echolith.host.cli_report import table

if TYPE_CHECKING:
    from echolith.sim.pty import Port

__all__ = ["build", "fit", "precision", "serve", "simulate", "verify"]


def simulate(job: Job, samples: int) -> Result:
    """Predict on the RTL."""
    x, y = job.need()
    design, x = job.design, plain("X", x, RangeError)[:_some(samples)]
    inputs(design, x)
    with spin("building the simulator"):
        chip = design.open("sim:")
    with chip, bar("simulating") as progress:
        outputs, begun = [], time.monotonic()
        for start in range(0, len(x), 2):
            outputs.append(chip.predict(x[start:start + 2]))
            progress(min(start + 2, len(x)), len(x))
        seconds = time.monotonic() - begun
    expected = cycles(design.program, design.entries["predict"], design.hardware) * len(outputs)
    found = np.concatenate(outputs)
    data = {"samples": len(x), "cycles": expected, "seconds": seconds, "cycles_per_second": expected / seconds,
            "outputs": found}
    if y is not None and np.ndim(y) == 2 and np.shape(y)[1] > 1:
        right = found.argmax(-1) == np.asarray(y)[:samples].argmax(-1) if found.ndim == 2 else np.array([])
        data["agreement"] = float(np.mean(right)) if right.size else None
    shown = {k: v for k, v in data.items() if k != "outputs" and v is not None}
    return Result(data, table((k.replace("_", " "), f"{v:,.6g}") for k, v in shown.items()))


def _some(samples: int) -> int:
    if samples < 1:
        raise RangeError(f"--samples must be a whole number, at least 1, not {samples}")
    return samples


def serve(job: Job) -> Result:
    """The simulated chip as a serial port, until interrupted."""
    from echolith.sim.pty import serve as open_port

    design, path, folder = job.design, job.model, None
    if not path.endswith(".echolith"):  # the other end needs a file to open
        folder = tempfile.TemporaryDirectory(prefix="echolith-")
        path = str(Path(folder.name) / "design.echolith")
        design.save(path)
    with spin("building the simulator"):
        port = open_port(design)
    data = {"url": port.url, "design": path}
    return Result(data, f"{port.url}\nopen it with echolith.open({path!r}, {port.url!r}); stop with Ctrl-C",
                  then=lambda: _wait(port, folder))


def _wait(port: "Port", folder: "tempfile.TemporaryDirectory | None") -> None:
    with port, folder or contextlib.nullcontext():
        code = port.wait()
        raise LinkError(f"the simulator ended with exit code {code}; its last words: {port.last_words()!r}")


def build(job: Job, out: Path, clock: float | None) -> Result:
    """A bitstream; the clock in MHz."""
    design = job.design
    with spin(f"building for {design.report['board']}") as say:
        found = design.build(out, clock=None if clock is None else clock * 1e6, progress=say)
    data = dataclasses.asdict(found)
    return Result(data, table((k.replace("_", " "), v) for k, v in data.items()))


def fit(job: Job, url: str, settings: dict, out: Path | None) -> Result:
    """Learn; settings are those of `Session.fit`."""
    if out is not None:
        writable(out)
    x, y = job.learning
    design, begun = job.design, time.monotonic()
    with spin(f"opening {url}"):
        chip = design.open(url)
    with chip, bar("learning") as progress:
        history = chip.fit(x, y, mask=job.mask, **settings, progress=lambda done, total, loss: progress(done, total))
        values = chip.state_dict()
    if out is not None:
        design.with_weights(values).save(out)
    data = {**dataclasses.asdict(history), "url": url, "seconds": time.monotonic() - begun,
            "out": str(out) if out else None}
    rows = [(f"epoch {i + 1}", f"loss {loss:.5g}") for i, loss in enumerate(history.loss)]
    return Result(data, table([*rows, ("updates", history.updates), ("samples", history.samples),
                               ("weights clipped", history.saturated), ("cycles", history.cycles or "not counted")]))


def precision(job: Job, out: Path | None, formats: Path | None) -> Result:
    """The precision report, and the formats as an editable file."""
    for path in (out, formats):
        if path is not None:
            writable(path)
    x, y = job.need()
    design = job.design
    with spin("measuring"):
        report = design.precision_report(x, y, job.mask)
    if out is not None:
        report.save(out)
    if formats is not None:
        formats.write_text(json.dumps(design.precision, indent=2) + "\n")
    return Result({"formats": design.precision, **report.plain()}, str(report))


def verify(job: Job, url: str, samples: int) -> Result:
    """Compare float64, integer model and chip."""
    from echolith.sim.verify import verify as run

    _some(samples)
    x, y = job.need()
    with bar(f"verifying {url}") as progress:
        found = run(job.design, x[:samples], None if y is None else y[:samples], url=url, progress=progress,
                    mask=None if job.mask is None else job.mask[:samples])
    return Result({"equal": bool(found), **dataclasses.asdict(found)}, str(found), ok=bool(found))
