"""The main job: an untrained network of oscillators learns real digits on the generated chip, end to end."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

import echolith as el
from echolith.compiler.design import Design
from echolith.compiler.paths import folder
from echolith.compiler.utilisation import utilisation
from echolith.examples import digits
from echolith.examples.bitstreams import Builds
from echolith.examples.pictures import draw_curves, draw_echo, echo_trace
from echolith.examples.teach import Curve, cosine, learn, learn_by_bptt
from echolith.examples.twins import Twins, epoch_on_both
from echolith.host.doctor import versions

__all__ = ["designs", "run", "summary"]

_GOAL = 0.97  # test accuracy
_FIELDS = ("path", "network", "lanes", "fmax_mhz", "clock_mhz", "lut", "ff", "dsp", "bram", "spram", "available",
           "tools")
_SHOWN = ("path", "network", "lanes", "fmax_mhz", "lut", "dsp", "bram", "test_accuracy")


def designs(seed: int = 0) -> dict[str, Design]:
    """The demo's networks, untrained, compiled for their boards."""
    how = {"dynamics": el.Leapfrog(digits.DT, digits.SUBSTEPS), "rule": el.HamiltonianEcho("last"),
           "calibrate": digits.data()}
    return {"ulx3s-85f": el.compile(digits.large(seed), board="ulx3s-85f", lanes=8, **how),
            "icebreaker": el.compile(digits.small(seed), board="icebreaker", lanes=2, **how)}


@dataclass
class _Stage:
    """Lines and bars on stderr, seconds by part."""

    progress: Progress
    builds: Builds | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        self.progress.console.print(f"{time.monotonic() - self.begun:6.0f} s  {text}", markup=False, highlight=False,
                                    soft_wrap=True)

    @contextmanager
    def part(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar of ``total`` steps; the function yielded takes the steps done."""
        begun, task = time.monotonic(), self.progress.add_task(name, total=total)
        yield lambda done: self.progress.update(task, completed=done)
        self.progress.remove_task(task)
        self.seconds[name] = time.monotonic() - begun

    def epochs(self, name: str, epochs: int, run: Callable[[Callable[[int, float, float], None]], Curve]) -> Curve:
        """A learning run with a line per epoch."""
        with self.part(name, epochs) as move:
            def report(epoch: int, loss: float, test: float) -> None:
                move(epoch)
                self.say(f"{name}: epoch {epoch} of {epochs}, cost {loss:.4f}, test {100 * test:.2f} %")

            return run(report)


def run(out: Path, *, epochs: int | None = None, bitstreams: bool = True) -> dict:
    """Everything; writes ``report.json`` and the pictures to ``out`` and returns the report.

    Parameters
    ----------
    epochs : int, optional
        Of the long run; the demo's own number if None.
    bitstreams : bool
        Build both; takes most of the time.
    """
    folder(out)
    torch.set_num_threads(1)  # small matrices: a second thread only takes time from the builds
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with threadpool_limits(1), Progress(*columns, console=console, transient=True, disable=not console.is_terminal
                                        ) as progress:
        stage = _Stage(progress)
        with stage.part("compile"):
            found = designs()
        paths = {board: out / f"{board}.echolith" for board in found}
        for board, design in found.items():
            design.save(paths[board])
        with Builds(paths if bitstreams else {}, out) as builds:
            report = _learned(stage, found, out, epochs or digits.EPOCHS)
            report["bitstreams"] = _built(stage, builds, found, report.pop("small_accuracy"))
    report |= {"seconds": {**stage.seconds, "all": time.monotonic() - stage.begun}, "tools": versions()}
    report["ok"] = _ok(report, bitstreams)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _learned(stage: _Stage, found: dict[str, Design], out: Path, epochs: int) -> dict:
    """Parts (a) and (b) and the pictures."""
    large = found["ulx3s-85f"]
    with large.open("int:") as chip:
        curve = stage.epochs("chip (int:)", epochs, lambda report: learn(chip, epochs, report))
        with stage.part("gradient"):
            close = cosine(chip, digits.large(), large)
        trained = chip.state_dict()
    large.with_weights(trained).save(out / "trained.echolith")
    stage.say(f"gradient: cosine with float64 BPTT {close:.6f}")
    with stage.part("one epoch on the RTL (sim:)", -(-len(digits.data()[0]) // digits.BATCH)) as move:
        twins = epoch_on_both(large, lambda done, total: move(done))
    stage.say(f"one epoch on the RTL: {_twins(twins)}")
    reference = stage.epochs("float64 BPTT", epochs, lambda report: learn_by_bptt(digits.large(), epochs, report))
    with found["icebreaker"].open("int:") as chip:
        small = stage.epochs("iCEBreaker's network (int:)", epochs, lambda report: learn(chip, epochs, report))
    with stage.part("pictures"):
        draw_curves(curve, reference, out / "learning_curve.png")
        forward, back = echo_trace(large, trained, digits.split()[2][0])
        draw_echo(forward, back, 2.0 ** -large.fractions["state"], out / "echo.png")
    return {
        "test_accuracy": curve.test[-1], "bptt_accuracy": reference.test[-1], "gradient_cosine": close,
        "epochs": epochs, "rtl_samples": twins.samples, "rtl_updates": twins.updates,
        "bit_identical": twins.difference is None, "difference": twins.difference, "words_compared": twins.words,
        "echo_exact": twins.echo_exact and np.array_equal(forward, back),
        "predicted_cycles": twins.predicted_cycles, "measured_cycles": twins.measured_cycles,
        "mac_utilisation": utilisation(large, digits.BATCH),
        "mac_utilisation_with_copy0": utilisation(large, digits.BATCH, with_copy0=True),
        "learning_curve": {"chip": vars(curve), "bptt": vars(reference)}, "small_accuracy": small.test[-1],
    }


def _twins(twins: Twins) -> str:
    same = "bit-identical to the integer model" if twins.difference is None else f"DIFFERENT: {twins.difference}"
    return (f"{twins.samples} samples, {twins.updates} updates, {twins.words:,} words {same}; "
            f"{twins.measured_cycles:,} cycles, {twins.predicted_cycles:,} predicted")


def _built(stage: _Stage, builds: Builds, found: dict[str, Design], small_accuracy: float) -> dict:
    """Part (c): waits for the bitstreams."""
    with stage.part("bitstreams"):
        while not builds.wait(30):
            stage.say(f"still building for {' and '.join(builds.waiting)}")
    report = {}
    for board, result in sorted(builds.results.items(), reverse=True):
        known = {"error": result["error"]} if "error" in result else {name: result[name] for name in _FIELDS}
        if "fmax_mhz" in known:
            known["fmax_mhz"] = min(known["fmax_mhz"].values())  # every clock runs at the board's one frequency
        report[board] = {**known, "seconds": result["seconds"]}
        stage.say(f"{board}: {result.get('error') or result.get('path')}")
    if "icebreaker" in report:
        report["icebreaker"]["test_accuracy"] = small_accuracy
        report["icebreaker"]["units"] = found["icebreaker"].units
    return report


def _ok(report: dict, bitstreams: bool) -> bool:
    built = not bitstreams or all("error" not in b for b in report["bitstreams"].values())
    return bool(built and report["bit_identical"] and report["echo_exact"] and report["test_accuracy"] >= _GOAL
                and abs(report["test_accuracy"] - report["bptt_accuracy"]) <= 0.01
                and report["predicted_cycles"] == report["measured_cycles"])


def summary(report: dict, out: Path) -> str:
    """The report in a few lines."""
    lines = [
        f"test accuracy      {100 * report['test_accuracy']:.2f} % on the chip's integers, "
        f"{100 * report['bptt_accuracy']:.2f} % by float64 BPTT",
        f"gradient           cosine {report['gradient_cosine']:.6f} with float64 BPTT, trained weights",
        f"RTL epoch          {report['rtl_samples']} samples, {report['rtl_updates']} updates, "
        f"bit-identical: {report['bit_identical']}, echo exact: {report['echo_exact']}",
        f"cycles             {report['measured_cycles']:,} measured, {report['predicted_cycles']:,} predicted; "
        f"useful MACs {report['mac_utilisation']:.3f} ({report['mac_utilisation_with_copy0']:.3f} with copy 0)",
    ]
    for board, b in report["bitstreams"].items():
        lines.append(f"{board:<19}" + (f"FAILED: {b['error']}" if "error" in b else ", ".join(
            f"{k} {b[k]}" for k in _SHOWN if k in b)))
    lines.append(f"{'all as promised' if report['ok'] else 'NOT as promised'}; {out / 'report.json'}")
    return "\n".join(lines)
