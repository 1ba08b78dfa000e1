"""`compile`: model -> Design, pass by pass."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from echolith.boards.catalog import board as find_board
from echolith.compiler.arguments import check_arguments
from echolith.compiler.assemble import assembled
from echolith.compiler.assemble import program as schedule
from echolith.compiler.case import Case
from echolith.compiler.case import case as find_case
from echolith.compiler.cycles import cycles
from echolith.compiler.damped import damped
from echolith.compiler.design import Design, Hardware
from echolith.compiler.dynamics import Leapfrog
from echolith.compiler.errors import CompileError, DesignMismatch
from echolith.compiler.hardware import NUDGE, differences
from echolith.compiler.hardware import hardware as find_hardware
from echolith.compiler.lanes import fullest
from echolith.compiler.layout import size
from echolith.compiler.learning import AnyRule, LagrangianEcho
from echolith.compiler.like import check_agreement, check_form
from echolith.compiler.located import located
from echolith.compiler.own import owned
from echolith.compiler.packed import worded
from echolith.compiler.precision import chosen
from echolith.compiler.program import Program
from echolith.compiler.quantise import Formats, Quantised, operand, quantise
from echolith.compiler.ranged import ranged
from echolith.compiler.search import Wanted, search
from echolith.compiler.steps import DELTA

__all__ = ["compile"]

_GUESSES = 4
_LANES = 8


def compile(model, *, dynamics: Leapfrog, rule: AnyRule | None, calibrate=None, steps: int | None = None,
            board: str = "ulx3s-85f", lanes: int | Literal["auto"] | None = None,
            precision: Mapping[str, str] | Wanted | str = "auto",
            samples: int | None = None, like: Design | None = None) -> Design:
    """Lower a PyTorch module to a `Design`.

    Parameters
    ----------
    model : torch.nn.Module
        With ``states``, ``inputs``, ``outputs`` and methods ``energy(q, u)``, ``cost(q, y)``, ``predict(q)``.
    dynamics : Leapfrog
    rule : HamiltonianEcho, EchoBackpropagation, LagrangianEcho or None
        None compiles inference only, without gradient memory.
    calibrate : (X, Y), (X, Y, mask) or None
        X (batch, steps, inputs); Y (batch, outputs), or (batch, steps, outputs) with the cost at every step; without a
        rule, either or None. A mask, 0 where there is no target, makes hardware for masks, see `Session.fit`. Formats,
        response and the room for samples come from these. Without them, ``steps`` must be given, the rows of a sample;
        inputs are then taken from [-1, 1] and states are Q5.12 or its like.
    board : str
        A name of `boards.catalog`.
    lanes : int, "auto" or None
        Lanes of two multipliers each; 8, or those of ``like``, if None. "auto" fills the board: of the numbers that
        make a sample faster, the largest that fits by the estimate of `compiler.resources`.
    precision : "auto", "packed", Wanted or mapping
        "auto" takes the formats that the calibrated ranges ask for and measures nothing; `Wanted` figures are measured
        on the calibration data and finer formats tried until they are met. A mapping replaces calibrated formats, by
        the names of `Design.precision` (``state``, ``hidden``, ...), spelled ``Q5.12`` (without the sign bit) or
        ``ap_fixed<18,6>`` (with it); only the fraction bits count, words have the board's width or that of ``word``.
        "packed" lets sweeps see 4 bits of a weight and 11 of what it is multiplied by, so that a multiplier makes two
        products; ``product`` asks for other widths. Masters and gradients stay wide.
    samples : int, optional
        Samples that the data memory holds; as many as were given to calibrate, as far as the board has room, if
        None. Samples that do not fit are streamed, 0 streams all. With ``like``, the memory is its own.
    like : Design, optional
        Compile for this design's hardware, so that its bitstream serves the new network too. Lanes and formats are
        its own; others cannot be asked for.

    Raises
    ------
    CompileError, DesignMismatch, ResourceError
    """
    try:
        design = _compiled(model, dynamics, rule, calibrate, steps, board, lanes, precision, samples, like)
        return owned(design, model)
    except CompileError as error:
        raise located(error, model) from error
    except RecursionError as error:
        deep = CompileError("energy: functions are nested too deeply; keep hidden results as states of their own, or "
                            "run the loop fewer times, not a chain of hundreds")
        raise located(deep, model) from error


def _compiled(model, dynamics: Leapfrog, rule: AnyRule | None, calibrate, steps: int | None, board: str,
              lanes: int | Literal["auto"] | None, precision: Mapping[str, str] | Wanted | str, samples: int | None,
              like: Design | None, growth: float | None = None) -> Design:
    check_arguments(model, dynamics, rule, calibrate, steps, lanes, precision, samples, like)
    if like is not None:
        check_agreement(like, lanes, precision, samples)
    if isinstance(rule, LagrangianEcho) and rule.dissipation:
        model, dynamics, calibrate, damping = damped(model, dynamics, rule, calibrate)
        still = dataclasses.replace(rule, dissipation=0.0)
        found = _compiled(model, dynamics, still, calibrate, steps, board, lanes, precision, samples, like,
                          damping and damping.largest)
        return dataclasses.replace(found, damping=damping)
    case = find_case(model, dynamics, rule, calibrate, steps, worded(find_board(board), precision, like),
                     1 if lanes == "auto" else int(lanes or _LANES), samples, like, growth)
    given = "auto" if isinstance(precision, Wanted) else precision
    if isinstance(precision, Wanted) and (calibrate is None or like is not None):
        raise CompileError("precision: wanted figures are measured on calibrate=(X, Y) and choose the hardware; they "
                           f"need data and no like=, not {precision}")
    if like is not None:
        check_form(case, like)

    def formats(spread: Case) -> Formats:
        return chosen(spread, given, like, calibrate is None)

    if case.reading is not None and case.learn:
        case = _settled(case, formats, like)
    if lanes == "auto" and like is None:
        case = _filled(case, formats)
    if isinstance(precision, Wanted):
        return search(case, precision, lambda formats: _lowered(case, formats, None))
    return _lowered(case, formats(case), like)


def _settled(case: Case, formats: Callable[[Case], Formats], like: Design | None) -> Case:
    """The case with as much as the row operands of its read-out must stand for: as given, or until ranging leaves the
    response where it is."""
    given = (like.fractions if like is not None else formats(case).fractions)[DELTA]
    if off := given - operand(case):
        return case.weakened(off)
    if like is not None:
        return case
    for _ in range(_GUESSES):
        design = _lowered(case, formats(case), None)
        off = design.hardware.width - NUDGE + design.hardware.delta_shift - design.response
        if abs(off) <= 1:
            break
        case = case.weakened(off)
    return case


def _lowered(case: Case, formats: Formats, like: Design | None) -> Design:
    """The design with these formats."""
    quantised, hardware, program = _realised(case, formats, like)
    if like is not None and hardware != like.hardware:
        raise DesignMismatch("the network does not fit this hardware: "
                             + "; ".join(differences(hardware, like.hardware)))
    _advise(case, formats)
    formats = dataclasses.replace(formats, fractions=quantised.circuits.fractions)
    design = assembled(case, formats, quantised, hardware, program)
    return ranged(design, case.samples, like, case.begun) if case.learn else design


def _realised(case: Case, formats: Formats, like: Design | None) -> tuple[Quantised, Hardware, Program]:
    """Circuits, the hardware around them and the program it runs."""
    quantised = quantise(case, formats)
    hardware = find_hardware(case, formats, quantised, like)
    program = schedule(case, hardware, quantised)
    if len(program.words) > hardware.depths.program:
        depths = dataclasses.replace(hardware.depths, program=size(len(program.words)))
        hardware = dataclasses.replace(hardware, depths=depths)
    return quantised, hardware, program


def _filled(case: Case, formats: Callable[[Case], Formats]) -> Case:
    """The case with as many lanes as fill its board."""
    def attempt(lanes: int) -> tuple[Hardware, float]:
        spread = case.spread(lanes)
        _, hardware, program = _realised(spread, formats(spread), None)
        return hardware, cycles(program.words, program.entries["learn" if case.learn else "predict"], hardware)

    return case.spread(fullest(case.board, [b.rows for b in case.plan.blocks], attempt))


def _advise(case: Case, formats: Formats) -> None:
    """Warn of inputs so large that the last bit of their weights shows."""
    largest = float(np.abs(case.samples.inputs).max(initial=0.0))
    if any(b.name == "drive" for b in case.plan.blocks) and largest * 2.0 ** -formats["drive"] > 2.0**-9:
        warnings.warn(f"inputs reach {largest:g}, and one unit of an input weight's last place moves a row by "
                      f"{largest * 2.0 ** -formats['drive']:.2g}: divide the inputs by {largest:g}", stacklevel=3)
