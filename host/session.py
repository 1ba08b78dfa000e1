"""The session: one API over the integer model, the simulated RTL and a board."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import or_

import numpy as np

from echolith.compiler.derived import chained, completed, restored, unlearnable
from echolith.compiler.design import Design
from echolith.compiler.errors import DesignMismatch, FileError, LinkError, RangeError
from echolith.compiler.files import load, read_tensors, write_tensors
from echolith.compiler.paths import writable
from echolith.compiler.registers import ERRORS, Flag
from echolith.host.arrays import inputs, targets
from echolith.host.clipping import warn_clipped
from echolith.host.device import Device, Run
from echolith.host.diagnose import diagnose
from echolith.host.measure import Measurement
from echolith.host.ranging import Ranging
from echolith.host.rates import SCHEDULES, Shrinking, batched, rates, sizes
from echolith.host.settings import check_settings
from echolith.host.weights import Weights, merged
from echolith.sim.data import outputs, words
from echolith.sim.weights import Words, from_values, to_values

__all__ = ["Echo", "History", "Session", "open_design", "open_file"]

_CHECKPOINT = "echolith-checkpoint-1"


@dataclass(frozen=True)
class Echo:
    """An un-nudged run forward and back."""

    exact: bool  # every bit of every state returned, and of every momentum of a parameter, where a rule counts them
    steps: int  # integrator steps each way
    cycles: int | None
    stalls: int | None


@dataclass
class History:
    """What `Session.fit` did, one entry per epoch in each list."""

    loss: list[float] = field(default_factory=list)  # mean cost of the outputs seen while learning
    updates: int = 0
    samples: int = 0
    cycles: int | None = None  # of all runs and updates; None where nothing counts them
    stalls: int | None = None
    saturated: int = 0  # weight words clipped
    responses: list[int] = field(default_factory=list)  # R at the end of every epoch


Progress = Callable[[int, int, float], None]


class Session:
    """Drives one device. Everything it returns is the same on ``int:``, ``sim:`` and a board.

    Parameters
    ----------
    design : Design
    device : Device
    """

    def __init__(self, design: Design, device: Device):
        self.kept: dict[str, np.ndarray] = {}  # parameters as of the last `switch`
        self._take(design, device)

    def _take(self, design: Design, device: Device) -> None:
        self.design, self.device = design, device
        self.checkpoint: str | None = None  # the last one written
        self._base = {name: np.array(value) for name, value in design.values.items()}
        self._ranging = Ranging(design, device)

    def switch(self, design: Design) -> None:
        """Go on with another design for the same bitstream, compiled with ``like=``: another rule, cost or network.

        Its program is loaded over the open link. Parameters of the same name and shape keep their values; momentum is
        cleared.

        Raises
        ------
        DesignMismatch
            It is of another hardware; nothing was changed.
        LinkError
            The link broke before all was loaded. It is closed, and `kept` has the parameters, for `load_state_dict`.
        """
        if not isinstance(design, Design):
            raise DesignMismatch("switch takes a compiled Design, of a file echolith.load(path), not "
                                 f"{design!r:.60}")
        self.kept, values = self.state_dict(), self.values()
        try:
            device = self.device.switched(design)
            mine = {n: v for n, v in values.items() if n in design.values and v.shape == design.values[n].shape}
            self._take(design, device)
            self.set_values({**self._base, **mine})
        except LinkError:
            with contextlib.suppress(Exception):
                self.close()
            raise

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the link; the chip keeps its weights."""
        self.device.close()

    # -- weights ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray]:
        """All parameters and buffers as float64, named as in ``model.state_dict()``, at the precision of the master
        words; those that the host computes others from, and unused ones, as they were given."""
        found = self.values()
        return {name: found[kept] for name, kept in self.design.parameters.items()}

    def values(self) -> dict[str, np.ndarray]:
        """What the chip computes with, by the names of `Design.values`."""
        return restored(self.design.derived, to_values(self.design, self._known(), self._base))

    def _known(self) -> Words:
        """Master words, of which the host must know the parameters that they were computed from."""
        words = self.device.read()
        computed = [made for made in self.design.derived if not made.moves]
        expected = from_values(self.design, self._base) if computed else words
        if any((words[name] != expected[name]).any() for name in words):
            made = computed[0]
            raise DesignMismatch("the chip holds weights of another session, and parameters cannot be read back from "
                                 f"functions of them: load_state_dict or restore a checkpoint, not {made.name} alone")
        return words

    def load_state_dict(self, weights: Weights) -> None:
        """Set parameters by name, from arrays, tensors or a ``.safetensors`` file; those not named keep their values.
        Clears momentum. Raises RangeError for values that the words of the chip cannot hold."""
        known = restored(self.design.derived, to_values(self.design, self.device.read(), self._base))
        self.set_values(merged(self.design, known, weights))

    def set_values(self, values: Mapping[str, np.ndarray]) -> None:
        """The opposite of `values`; functions of parameters follow from what they are made of. Clears momentum."""
        self._base = completed(self.design.derived, values)
        self.device.write(from_values(self.design, self._base))
        if self.design.hardware.learn:
            self.device.clear()

    def save(self, path: str | os.PathLike) -> None:
        """Write a checkpoint: master words, gradient words (momentum), response exponent."""
        tensors = {f"master.{n}": w for n, w in self.device.read().items()}
        if self.design.hardware.learn:
            tensors.update({f"gradient.{n}": w for n, w in self.device.read_gradients().items()})
        tensors.update({f"base.{n}": v for n, v in self._base.items()})
        text = {"program_id": f"{self.design.program_id:08x}", "ranging": self._ranging.text()}
        write_tensors(path, _CHECKPOINT, tensors, text)
        self.checkpoint = str(path)

    def restore(self, path: str | os.PathLike) -> None:
        """Go back to a checkpoint of the same design, bit for bit."""
        tensors, text = read_tensors(path, _CHECKPOINT)
        if text.get("program_id") != f"{self.design.program_id:08x}":
            raise FileError(f"{path} belongs to another design: this one is {self.design.program_id:08x}, the "
                            f"checkpoint's {text.get('program_id')}")
        master, gradient = _part(tensors, "master."), _part(tensors, "gradient.")
        base, ranging = _part(tensors, "base."), text.get("ranging", "")
        shapes = {n: w.shape for n, w in from_values(self.design, self.design.values).items()}
        found = [master] + ([gradient] if self.design.hardware.learn else [])
        if not Ranging.valid(ranging) or base.keys() != self._base.keys() or any(
                {n: w.shape for n, w in part.items()} != shapes for part in found):
            raise FileError(f"{path} is damaged: its words do not have this design's shapes")
        self._base = base
        self.device.write(master)
        if self.design.hardware.learn:
            self.device.write_gradients(gradient)
        self._ranging.restore(ranging)
        self.checkpoint = str(path)

    # -- runs ------------------------------------------------------------------------------------------------------

    def predict(self, X) -> np.ndarray:
        """Outputs (batch, outputs), with a time axis if the cost is at every step, of (batch, steps, inputs)."""
        x, y = words(self.design, inputs(self.design, X), None)
        run = self._good(self.device.run("predict", x, y), x, y, "predict")
        if run.outputs is None:
            raise LinkError("the device returned no outputs")
        return outputs(self.design, run.outputs)

    def echo(self, X) -> Echo:
        """Run forward and back without nudges and check the return of every bit."""
        x, y = words(self.design, inputs(self.design, X), None)
        counted = self.design.rule.counted
        before = self.device.read_gradients() if counted else {}
        run = self.device.run("echo", x, y)
        after = self.device.read_gradients() if counted else {}
        exact = not run.flags >> Flag.ECHO & 1 and all(np.array_equal(before[name], after[name]) for name in before)
        steps = self.design.dynamics.steps * self.design.dynamics.substeps
        return Echo(exact, steps, run.cycles, run.stalls)

    def gradient(self, X, Y, mask=None) -> dict[str, np.ndarray]:
        """Mean gradient of the cost over the batch for every learned parameter. Clears momentum.

        ``mask`` as for `fit`.

        The samples run several times, until nudge and gain suit them; the session's settings stay as they are. Where
        nudges disagree, they run with seven sets of neighbouring weights too, which takes eight times as long; then the
        weights are written back."""
        self._learns()
        x, y = self._words(X, Y, mask)
        if self.design.derived:
            self._known()
        found = Measurement(self.design, self.device, self._ranging, self._good).gradient(x, y)
        found = chained(self.design.derived, found, self._base, frozenset(self.design.learned))
        return found | {name: np.zeros(np.shape(self._base[name])) for name in self.design.unused}

    def load(self, X, Y, mask=None) -> bool:
        """Send a data set ahead of the `fit` that learns it, which then sends orders only. False if it does not fit:
        `fit` will send its windows while the core computes."""
        self._learns()
        return self.device.hold(*self._words(X, Y, mask))

    def fit(self, X, Y, *, mask=None, epochs: int = 1, batch_size: int = 32, learning_rate: float = 0.1,
            momentum: float = 0.0, schedule: str = "constant", seed: int = 0, accumulate: int = 1,
            weight_decay: float = 0.0,
            checkpoint: str | os.PathLike | None = None, progress: Progress | None = None) -> History:
        """Learn on the chip by stochastic gradient descent.

        Parameters
        ----------
        X, Y : array-like
            (batch, steps, inputs) and targets.
        mask : array-like, optional
            0 where there is no target, which costs nothing then, else 1: (batch, steps) with the cost at every step,
            (batch,) at the last, or one value per output, of Y's shape. For designs compiled with a mask.
        momentum : float
            v = momentum * v + g; parameter -= learning_rate * v. In [0, 1).
        schedule : str
            ``constant``, ``cosine`` or ``linear``, over all updates.
        seed : int
            Decides the order of samples; the order does not depend on numpy's version.
        accumulate : int
            Batches whose gradients add up on the chip before an update; an epoch's last update may have fewer.
        weight_decay : float
            Of all that is learned, as torch.optim.SGD's: v = momentum * v + g + weight_decay * parameter; see
            `rates.Shrinking`. Needs a design compiled with a rule that has weight_decay=True.
        checkpoint : path, optional
            Written after every epoch; its directory is made before the first.
        progress : callable, optional
            Called with (updates done, updates in all, loss of the batch).

        Raises
        ------
        FileError
            The checkpoint cannot be written; found before anything is learned.
        CompileError
            The model computes a parameter from others that learn; the text says what to write instead.
        RangeError
            A state wrapped, the echo did not return or a gradient word is about to wrap: the batch is discarded, the
            weights are those before it.

        Warns
        -----
        UserWarning
            What was learned leaves the words that the design was compiled for; see `host.clipping`.
        """
        self._learns()
        refused = unlearnable(self.design.derived, self.design.held, self.design.learned)
        if refused is not None:
            raise refused
        check_settings(epochs, batch_size, learning_rate, momentum, schedule, seed, accumulate, weight_decay,
                       progress)
        if weight_decay and not self.design.hardware.shrinks:
            raise RangeError("this hardware cannot shrink weights: compile with a rule that has "
                             f"weight_decay=True (--decays), or leave it at 0, not {weight_decay:g}")
        x, y = self._words(X, Y, mask)
        if checkpoint is not None:
            writable(checkpoint)
        self.device.clear()
        held = self.device.hold(x, y)
        history, counts = History(), sizes(len(x), batch_size, accumulate)
        total = epochs * len(counts)
        shrinking = Shrinking(self.design, weight_decay)
        losses, waiting, runs = np.zeros(epochs), [], self.design.rule.runs
        for epoch in range(epochs):
            batches = [np.repeat(b, runs) for b in batched(len(x), seed, epoch, batch_size)]
            following = batched(len(x), seed, epoch + 1, batch_size)[:1] if epoch + 1 < epochs else []
            following = [np.repeat(b, runs) for b in following]
            learned: list[tuple[Run, int]] = []  # since the last update, with their sizes
            for index, (batch, then) in enumerate(zip(batches, [*batches[1:], *following, None], strict=False)):
                run = self._batch(x, y, batch, then, held, epoch * len(batches) + index, history)
                learned.append((run, len(batch)))
                if len(learned) == accumulate or index + 1 == len(batches):
                    factor = SCHEDULES[schedule](history.updates / total)
                    now, later = (counts[(history.updates + ahead) % len(counts)] for ahead in range(2))
                    self._update(learned, learning_rate * factor, momentum, later / now, shrinking, history)
                    learned = []
                for number, seen in waiting:  # a batch later, when its outputs have come
                    losses[number] += seen()
                waiting = [(epoch, functools.partial(self._seen, run, y[batch], history.updates, total, progress))]
            history.responses.append(self.device.response)
            if checkpoint is not None:
                self.save(checkpoint)
        for number, seen in waiting:
            losses[number] += seen()
        history.loss = (losses / (runs * len(x))).tolist()
        warn_clipped(self.design, self.values(), x, y)
        return history

    def _batch(self, x: np.ndarray, y: np.ndarray, batch: np.ndarray, then: np.ndarray | None, held: bool, number: int,
               history: History) -> Run:
        entry = self.design.learning(number)
        if held:
            run = self.device.run_held(entry, batch, then)
        else:
            run = self.device.run(entry, x[batch], y[batch], None if then is None else (x[then], y[then]))
        self._good(run, x[batch], y[batch], entry)
        history.samples += len(batch) // self.design.rule.runs
        _count(run, history)
        return run

    def _update(self, runs: list[tuple[Run, int]], learning_rate: float, momentum: float, following: float,
                shrinking: Shrinking, history: History) -> None:
        """From gradients that these runs, of so many samples each, have added up; the next update has ``following``
        times as many."""
        last = runs[-1][0]
        seen = replace(last, leading=functools.reduce(or_, (run.leading for run, _ in runs)),
                       response=functools.reduce(or_, (run.response for run, _ in runs)))
        gain, change = self._ranging.next_gain(seen, following if momentum else 1.0)
        samples = sum(count for _, count in runs)
        shrinks = shrinking.rates(learning_rate, momentum)
        stays = momentum * shrinking.growth * following
        updated = self.device.update(rates(self.design, learning_rate, stays, samples, gain, change) | shrinks)
        none = np.zeros((0, 0, 0), np.int64)
        self._good(updated, none, none, "update")
        self._ranging.move(seen, updated, change)
        history.updates += 1
        history.saturated += updated.saturated
        _count(updated, history)

    def _seen(self, run: Run, y: np.ndarray, updates: int, total: int, progress: Progress | None) -> float:
        """Cost of a batch, in all of its samples; reports it."""
        loss = self.cost(run.results(), y)
        if progress is not None:
            progress(updates, total, loss)
        return loss * len(y)

    def cost(self, output_words: np.ndarray | None, target_words: np.ndarray) -> float:
        """Mean cost per sample from output and target words; missing targets cost nothing."""
        if output_words is None or self.design.cost is None:
            return float("nan")
        f = self.design.fractions
        costs = self.design.cost(output_words * 2.0 ** -f["output"], target_words * 2.0 ** -f["target"])
        known = True if self.design.missing is None else target_words != self.design.missing
        total = np.sum(costs, where=known)
        return float(total * self.design.dynamics.cost_scale / len(output_words))

    def _words(self, X, Y, mask) -> tuple[np.ndarray, np.ndarray]:
        x = inputs(self.design, X)
        return words(self.design, x, targets(self.design, Y, len(x), mask))

    def _learns(self) -> None:
        if not self.design.hardware.learn:
            raise RangeError("this design was compiled with rule=None and cannot learn; compile it with a rule")
        if not self.design.learned:
            raise RangeError("nothing of this design learns: every parameter that its energy and cost depend on is "
                             "frozen; call requires_grad_() on those that should learn and compile again")

    def _good(self, run: Run, x: np.ndarray, y: np.ndarray, entry: str) -> Run:
        """The run, unless a flag is up: then the batch is discarded and the cause is found by replay."""
        if run.flags & ERRORS == 0:
            return run
        if self.design.hardware.learn:
            self.device.clear()
        raise RangeError(diagnose(self.design, self.device, run, x, y, entry, self.checkpoint))


def _count(run: Run, history: History) -> None:
    if run.cycles is not None and run.stalls is not None:
        history.cycles = (history.cycles or 0) + run.cycles
        history.stalls = (history.stalls or 0) + run.stalls


def _part(tensors: dict[str, np.ndarray], prefix: str) -> Words:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def open_design(design: Design, url: str = "int:", *, load: bool = False) -> Session:
    """A session on ``int:``, ``int:compiled`` (faster, with a C++ compiler), ``sim:`` or
    ``serial:///dev/ttyUSB0?baud=1000000``.

    A fresh chip gets the design's initial parameters; one that already holds this program keeps its weights.
    ``load`` replaces a different program instead of refusing it.
    """
    if url in ("int:", "int:compiled"):
        from echolith.sim.device import IntegerDevice

        device: Device = IntegerDevice(design, compiled=url != "int:")
        fresh = True
    else:
        from echolith.host.chip import ChipDevice
        from echolith.host.link import Link
        from echolith.host.transports import PipeTransport, open_transport

        if url == "sim:":
            from echolith.sim.simulator import start

            link = Link(PipeTransport(start(design)), timeout=5.0)
        else:
            link = Link(open_transport(url))
        try:
            chip = ChipDevice(design, link, load=load)
        except BaseException:
            with contextlib.suppress(Exception):
                link.close()
            raise
        device, fresh = chip, chip.fresh
    session = Session(design, device)
    if fresh:
        device.write(from_values(design, design.values))
    return session


def open_file(path: str | os.PathLike, url: str = "int:", **options) -> Session:
    """A session on a saved design."""
    return open_design(load(path), url, **options)
