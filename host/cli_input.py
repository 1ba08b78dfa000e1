"""What the command line is given: a model file or a saved design, and data."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated
from zipfile import BadZipFile

import numpy as np
import typer

from echolith.compiler.errors import CompileError, FileError
from echolith.compiler.files import load
from echolith.host.cli_model import call, execute
from echolith.host.cli_output import spin
from echolith.host.weights import read

if TYPE_CHECKING:
    from echolith.compiler.design import Design
    from echolith.compiler.search import Wanted

__all__ = ["OPTIONS", "Job"]

Pair = tuple[np.ndarray, np.ndarray | None]
Given = Pair | tuple[np.ndarray, np.ndarray | None, np.ndarray]

# Name, type and help of everything that says what to compile; shared by all commands that need a design.
OPTIONS: dict[str, tuple[object, object]] = {
    "model": (Annotated[str, typer.Argument(help="file.py:factory, or a saved .echolith file", show_default=False)],
              ...),
    "data": (Annotated[Path | None, typer.Option(help="an .npz with X, Y and, if any, mask; else the model file's "
                                                      "data()")], None),
    "dt": (Annotated[float | None, typer.Option(help="length of a substep [0.25]")], None),
    "substeps": (Annotated[int | None, typer.Option(help="substeps per input row [1]")], None),
    "steps": (Annotated[int | None, typer.Option(help="input rows per sample, if there are no data")], None),
    "cost_at": (Annotated[str | None, typer.Option(help="last, every or mean [last]")], None),
    "rule": (Annotated[str | None, typer.Option(help="HamiltonianEcho, LagrangianEcho or EchoBackpropagation "
                                                     "[HamiltonianEcho]")], None),
    "dissipation": (Annotated[float | None, typer.Option(help="rate at which momenta decay, of LagrangianEcho [0]")],
                    None),
    "decays": (Annotated[bool, typer.Option("--decays", help="a core that knows fit's --weight-decay")], False),
    "inference": (Annotated[bool, typer.Option("--inference", help="a core that cannot learn")], False),
    "board": (Annotated[str | None, typer.Option(help="ulx3s-85f or icebreaker [ulx3s-85f]")], None),
    "lanes": (Annotated[str | None, typer.Option(help="lanes of two multipliers, or auto: fill the board [8]")], None),
    "precision": (Annotated[Path | None, typer.Option(help="a .json of formats by name, as `precision --formats` "
                                                           "writes it")], None),
    "cosine": (Annotated[float | None, typer.Option(help="wanted cosine of the gradient with float64's: finer formats "
                                                         "are tried until it is met [0.9995 with --loss]")], None),
    "loss": (Annotated[float | None, typer.Option(help="points of accuracy, or percent of the outputs, that may be "
                                                       "lost, likewise [0.5 with --cosine]")], None),
    "weights": (Annotated[Path | None, typer.Option(help="trained parameters, a .safetensors file")], None),
}


@dataclass(frozen=True)
class Job:
    """A model or saved design and the data that go with it."""

    model: str
    data: Path | None = None
    dt: float | None = None
    substeps: int | None = None
    steps: int | None = None
    cost_at: str | None = None
    rule: str | None = None
    dissipation: float | None = None
    decays: bool = False
    inference: bool = False
    board: str | None = None
    lanes: str | None = None
    precision: Path | None = None
    cosine: float | None = None
    loss: float | None = None
    weights: Path | None = None

    @cached_property
    def _file(self) -> ModuleType | None:
        if self.model.endswith(".echolith"):
            return None
        path, colon, name = self.model.rpartition(":")
        if not colon or not path.endswith(".py") or not name.isidentifier():
            raise CompileError(f"a model is named file.py:factory or by a saved file.echolith, not {self.model!r}")
        return execute(path)

    @cached_property
    def samples(self) -> Given | None:
        """(X, Y) or (X, Y, mask) of --data or of the model file; Y may be None, and so may all of it."""
        if self.data is not None:
            return _read(self.data)
        function = getattr(self._file, "data", None)
        if function is None:
            return None
        path = self.model.rpartition(":")[0]
        given = call(function, path, "data")
        try:
            found = tuple(given)
            x, y = found[:2]
        except (TypeError, ValueError) as error:
            raise CompileError(f"data() of {path} must return X, Y: {error}") from error
        return (x, y, *found[2:3])

    @property
    def learning(self) -> tuple[np.ndarray, np.ndarray]:
        """(X, Y), both there."""
        x, y = self.need()
        if y is None:
            raise FileError(f"learning needs targets: put an array Y beside X into {self.data or self.model}")
        return x, y

    def need(self) -> Pair:
        """(X, Y), X there."""
        if self.samples is None:
            raise FileError("this command needs samples: give --data file.npz with X and Y, or define data() in the "
                            f"model file; there are none for {self.model}")
        return self.samples[0], self.samples[1]

    @property
    def mask(self) -> np.ndarray | None:
        """What comes with (X, Y) for targets that are missing."""
        return self.samples[2] if self.samples is not None and len(self.samples) == 3 else None

    @cached_property
    def design(self) -> "Design":
        """Compiled or loaded."""
        if self._file is None:
            given = self._given(lambda name: name not in ("model", "data", "weights"))
            if given:
                raise CompileError(f"a saved design is compiled already: leave out {given}, or name the model file "
                                   f"instead of {self.model}")
            design = load(self.model)
            return design if self.weights is None else design.with_weights(self.weights)
        return self._compile(self._file)

    def _given(self, wanted: Callable[[str], bool]) -> str:
        """Options that were given, as they are written."""
        return ", ".join(f"--{f.name.replace('_', '-')}" for f in fields(self)
                         if wanted(f.name) and not any(getattr(self, f.name) is absent for absent in (None, False)))

    def _compile(self, file: ModuleType) -> "Design":
        from echolith.compiler.build import compile
        from echolith.compiler.dynamics import Leapfrog
        from echolith.compiler.learning import named

        if self.inference and (given := self._given(lambda name: name in ("cost_at", "rule", "dissipation", "decays"))):
            raise CompileError(f"--inference compiles no rule: leave it out, or all that a rule is told, not {given}")
        dynamics = Leapfrog(0.25 if self.dt is None else self.dt, 1 if self.substeps is None else self.substeps)
        rule = None if self.inference else named(self.rule or "HamiltonianEcho", self.cost_at, self.dissipation,
                                                      self.decays)
        model, board, lanes = self._model(file), self.board or "ulx3s-85f", self.lanes or "8"
        with spin("compiling"):
            return compile(model, dynamics=dynamics, rule=rule, calibrate=self.samples, steps=self.steps, board=board,
                           lanes=int(lanes) if lanes.lstrip("-").isdecimal() else lanes,  # type: ignore[arg-type]
                           precision=self._precision())

    def _precision(self) -> "dict[str, str] | str | Wanted":
        """What `compile` takes: formats of a file, figures, or "auto"."""
        from echolith.compiler.search import Wanted

        figures = {name: value for name in ("cosine", "loss") if (value := getattr(self, name)) is not None}
        if figures and self.precision is not None:
            raise CompileError("--precision gives the formats that --cosine and --loss search for: leave out one of "
                               f"them, not {self.precision}")
        return Wanted(**figures) if figures else _formats(self.precision)

    def _model(self, file: ModuleType):
        path, _, name = self.model.rpartition(":")
        factory = getattr(file, name, None)
        if not callable(factory):
            raise CompileError(f"{file.__file__} must define a function {name}() that returns the model")
        model = call(factory, path, name)
        if not hasattr(model, "named_parameters"):
            raise CompileError(f"{name} of {file.__file__} must return a torch.nn.Module, not a "
                               f"{type(model).__name__}")
        if self.weights is not None:
            _load(model, self.weights)
        return model


def _load(model, path: Path) -> None:
    """Every parameter of a torch module from a file."""
    import torch

    try:
        model.load_state_dict({name: torch.from_numpy(a) for name, a in read(path).items()})
    except RuntimeError as error:
        raise FileError(f"{path} does not fit the model: {' '.join(str(error).split())}") from error


def _formats(path: Path | None) -> dict[str, str] | str:
    """A mapping of formats from JSON; "auto" without a file."""
    if path is None:
        return "auto"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise FileError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise FileError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise FileError(f'{path} must hold an object of formats by name, like {{"state": "Q5.12"}}, not {found!r:.60}')
    return found


def _read(path: Path) -> Given:
    """X, Y and mask of an .npz, without pickles."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if "X" not in file:
                raise FileError(f"{path} must hold an array X and, to learn, Y, not {sorted(file)}")
            x, y = file["X"], file["Y"] if "Y" in file else None
            return (x, y, file["mask"]) if "mask" in file else (x, y)
    except FileNotFoundError as error:
        raise FileError(f"there is no file {path}") from error
    except (OSError, ValueError, EOFError, AttributeError, TypeError, KeyError, BadZipFile) as error:
        raise FileError(f"{path} is not an .npz of plain arrays: {error}") from error
