"""The command ``echolith``. Every verb returns a `Result`; parts that need torch or amaranth are imported inside."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from echolith.host.cli_input import OPTIONS, Job
from echolith.host.cli_output import Result, speak

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Write an energy in PyTorch; get a chip that runs it and learns it.")

_Json = Annotated[bool, typer.Option("--json", help="one JSON object on stdout, nothing else")]
_Url = Annotated[str, typer.Option(help="int:, sim: or serial:///dev/ttyUSB0?baud=1000000")]
_Out = Annotated[Path, typer.Argument(help="directory to write to", show_default=False)]


def _verb(function: Callable[..., Result]) -> Callable[..., Result]:
    """Make a command of a function: options of a `Job` if its first parameter is one, and --json."""
    parameters = list(inspect.signature(function).parameters.values())
    jobs = bool(parameters) and parameters[0].annotation is Job
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    shared = [inspect.Parameter(name, kind, annotation=hint, default=inspect.Parameter.empty if value is ... else value)
              for name, (hint, value) in OPTIONS.items()] if jobs else []
    own = parameters[1:] if jobs else parameters
    required = [p for p in own if p.default is inspect.Parameter.empty]
    optional = [p for p in own if p.default is not inspect.Parameter.empty]
    last = inspect.Parameter("as_json", kind, annotation=_Json, default=False)

    @functools.wraps(function)
    def command(as_json: bool, **options) -> None:
        chosen = {name: options.pop(name) for name in OPTIONS} if jobs else None
        run = functools.partial(function, **options) if chosen is None else functools.partial(
            function, Job(**chosen), **options)
        raise typer.Exit(speak(run, as_json))

    listed = [*shared[:1], *required, *shared[1:], *optional, last]
    del command.__wrapped__
    command.__signature__ = inspect.Signature(listed)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in listed}
    app.command(function.__name__.rstrip("_"))(command)
    return function


@_verb
def demo(out: Annotated[Path, typer.Option(help="where report and pictures go")] = Path("build/demo"),
         epochs: Annotated[int | None, typer.Option(min=1, help="epochs of the long run")] = None,
         bitstreams: Annotated[bool, typer.Option(help="build both bitstreams")] = True) -> Result:
    """Learn handwritten digits: integer model, BPTT, one epoch on the RTL, both bitstreams, a report."""
    from echolith.examples.demo import run, summary

    report = run(out, epochs=epochs, bitstreams=bitstreams)
    return Result(report, summary(report, out), ok=report["ok"])


@_verb
def compile_(job: Job, out: Annotated[Path, typer.Option("--out", "-o", help="the design's file")] = Path(
        "design.echolith")) -> Result:
    """Lower a model to a design and save it."""
    design = job.design
    design.save(out)
    data = {"path": str(out), "hardware_id": f"{design.hardware.hardware_id:08x}",
            "program_id": f"{design.program_id:08x}", "units": design.units, "lanes": design.hardware.lanes,
            "board": design.report["board"]}
    return Result(data, f"{out}: {design.units} units, {design.hardware.lanes} lanes, hardware {data['hardware_id']}, "
                        f"program {data['program_id']}")


@_verb
def explain(job: Job) -> Result:
    """The design in words: energy, forces, updates, formats, schedule, cycles."""
    text = job.design.explain()
    return Result({"text": text}, text)


@_verb
def precision(job: Job, out: Annotated[Path | None, typer.Option("--out", "-o", help="the report as .json, .png, .pdf "
                                                                                     "or .svg")] = None,
              formats: Annotated[Path | None, typer.Option(help="write the formats to a .json, to edit and to compile "
                                                                "with --precision")] = None) -> Result:
    """Ranges against formats, what the gradient loses to nudge and word length, growth of perturbations."""
    from echolith.host import cli_run

    return cli_run.precision(job, out, formats)


@_verb
def estimate(job: Job, baud: Annotated[int, typer.Option(help="bits per second of the serial link")] = 1_000_000,
             clock: Annotated[float | None, typer.Option(help="MHz of the core [the board's usual clock]")] = None
             ) -> Result:
    """Cycles, speed, memories and cells of the board before synthesis."""
    from echolith.compiler.estimate import estimate as run
    from echolith.host.cli_report import estimated

    found = run(job.design, baud=baud, clock=None if clock is None else clock * 1e6)
    return Result(found, estimated(found))


@_verb
def simulate(job: Job, pty: Annotated[bool, typer.Option("--pty", help="serve the chip as a serial port")] = False,
             samples: Annotated[int, typer.Option(help="samples to predict")] = 32) -> Result:
    """Run the RTL: predict some samples, or serve it as a serial port until interrupted."""
    from echolith.host import cli_run

    return cli_run.serve(job) if pty else cli_run.simulate(job, samples)


@_verb
def export(job: Job, out: _Out) -> Result:
    """Verilog, golden vectors, a cocotb bench and a workflow, for co-simulation without echolith."""
    from echolith.host.cli_output import spin

    design = job.design
    with spin("exporting"):
        design.export(out)
    files = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    return Result({"path": str(out), "files": files}, f"{out}: " + ", ".join(files))


@_verb
def build(job: Job, out: _Out,
          clock: Annotated[float | None, typer.Option(help="MHz of the core, at most [the board's usual clock, or what "
                                                           "is reached]")] = None) -> Result:
    """Synthesise, place and route for the board; fails if the design does not fit or misses the clock asked for."""
    from echolith.host import cli_run

    return cli_run.build(job, out, clock)


@_verb
def fit(job: Job, url: _Url = "int:", epochs: int = 1, batch_size: int = 32, learning_rate: float = 0.1,
        momentum: float = 0.0, schedule: Annotated[str, typer.Option(help="constant, cosine or linear")] = "constant",
        seed: int = 0, accumulate: Annotated[int, typer.Option(help="batches per update")] = 1,
        weight_decay: Annotated[float, typer.Option(help="of all parameters")] = 0.0,
        checkpoint: Annotated[Path | None, typer.Option(help="written after every epoch")] = None,
        out: Annotated[Path | None, typer.Option("--out", "-o", help="save the trained design")] = None) -> Result:
    """Learn on the chip, its simulation or the integer model."""
    from echolith.host import cli_run

    settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "momentum": momentum,
                "schedule": schedule, "seed": seed, "accumulate": accumulate,
                "weight_decay": weight_decay, "checkpoint": checkpoint}
    return cli_run.fit(job, url, settings, out)


@_verb
def verify(job: Job, url: _Url = "sim:", samples: Annotated[int, typer.Option(help="samples to compare")] = 8
           ) -> Result:
    """Compare a chip or its simulation with the integer model, bit for bit, and that with float64."""
    from echolith.host import cli_run

    return cli_run.verify(job, url, samples)


@_verb
def bench(
    figures: Annotated[list[str] | None, typer.Argument(
        help="cycles, area, speed, link, growth, simulation, accuracy, passes, rules, stacks, "
             "stack-cosines [all but the last five]",
        show_default=False)] = None,
    units: Annotated[str | None, typer.Option(help="sizes of the network, as 16,64")] = None,
    lanes: Annotated[str | None, typer.Option(help="numbers of lanes, as 8,64")] = None,
    board: Annotated[str | None, typer.Option(help="of cycles and area [area: all]")] = None,
    clock: Annotated[float | None, typer.Option(help="of area: MHz that is aimed at [twice the usual clock]")] = None,
    builds: Annotated[bool, typer.Option("--builds", help="area: place and route what is missing; hours in all")
                      ] = False,
    seeds: Annotated[int | None, typer.Option(help="of placement [5, 1 if a build takes 5 minutes], of the weights "
                                                   "of accuracy, passes, rules and stacks [3]")] = None,
    results: Annotated[Path | None, typer.Option(help="where rows are kept [bench/results of a checkout]")] = None,
    plots: Annotated[Path | None, typer.Option(help="directory for pictures")] = None,
) -> Result:
    """Measure the figures: cycles, area, speed beside torch, growth; rows are kept with date and tools."""
    from echolith.bench.command import run

    return run(figures or [], units, lanes, board, clock, builds, seeds, results, plots)


@_verb
def doctor() -> Result:
    """What this machine has and lacks, and the command that installs what is missing."""
    from dataclasses import asdict

    from echolith.host.cli_report import examined
    from echolith.host.doctor import examine

    checks = examine()
    ok = all(c.ok for c in checks if c.needed)
    return Result({"ok": ok, "checks": [asdict(c) for c in checks]}, examined(checks), ok)


def main() -> None:
    """Entry point of the installed script."""
    app(prog_name="echolith")
