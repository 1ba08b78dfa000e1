"""`compile`: model -> Design, pass by pass."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from echolith.boards.catalog import Board
from echolith.boards.catalog import board as find_board
from echolith.compiler.agree import agree
from echolith.compiler.calibrate import Samples
from echolith.compiler.calibrate import calibrate as run_calibration
from echolith.compiler.capture import capture
from echolith.compiler.circuits import Circuits
from echolith.compiler.describe import describe
from echolith.compiler.design import Depths, Design, Dynamics, Hardware, Placement, Vector
from echolith.compiler.dynamics import HamiltonianEcho, Leapfrog
from echolith.compiler.errors import CompileError, DesignMismatch, RangeError, ResourceError
from echolith.compiler.flow import Flow, derive
from echolith.compiler.fold import folded
from echolith.compiler.formats import Format
from echolith.compiler.graph import Graph
from echolith.compiler.ir import var
from echolith.compiler.isa import Opcode
from echolith.compiler.layout import Plan, plan, size
from echolith.compiler.ops import mul, power
from echolith.compiler.program import Program, Schedule, build
from echolith.compiler.quantise import Formats, Quantised, choose_formats, cost, quantise
from echolith.compiler.select import Pass, select

__all__ = ["compile"]

_NUDGE = 8  # bits of a nudge operand left free at the calibrated response, for stronger ones
_SEARCH = 12  # runs until the nudge fits
_STEPS = 1024  # integrator steps of them; longer samples are ranged while learning
_HEADROOM = 6  # bits
_SAMPLES = 32  # calibration samples that the integer model learns from to find the response


@dataclass(frozen=True)
class _Case:
    """Everything that does not change while formats and response are searched."""

    graph: Graph
    flow: Flow
    passes: tuple[Pass, ...]
    vectors: tuple[str, ...]  # parameters of the neuron unit
    samples: Samples
    dynamics: Dynamics
    board: Board
    lanes: int
    learn: bool
    plan: Plan
    capacity: int  # data words wanted

    @property
    def units(self) -> int:
        return sum(self.graph.states.values())


def compile(model, *, dynamics: Leapfrog, rule: HamiltonianEcho | None, calibrate=None, steps: int | None = None,
            board: str = "ulx3s-85f", lanes: int = 8, precision: Mapping[str, str] | str = "auto",
            samples: int | None = None, like: Design | None = None) -> Design:
    """Lower a PyTorch module to a `Design`.

    Parameters
    ----------
    model : torch.nn.Module
        With ``states``, ``inputs``, ``outputs`` and methods ``energy(q, u)``, ``cost(q, y)``, ``predict(q)``.
    dynamics : Leapfrog
    rule : HamiltonianEcho or None
        None compiles inference only, without gradient memory.
    calibrate : (X, Y) or None
        X (batch, steps, inputs); Y (batch, outputs), or (batch, steps, outputs) with the cost at every step; Y may be
        None without a rule. Formats, response and the room for samples come from it. Without it, ``steps`` must be
        given, inputs are taken from [-1, 1] and states are Q5.12 or its like.
    board : str
        A name of `boards.catalog`.
    lanes : int
        Lanes of two multipliers each.
    precision : "auto" or mapping
        Formats that replace calibrated ones, by the names of `Design.precision` (``state``, ``hidden``, ...), spelled
        ``Q5.12`` (without the sign bit) or ``ap_fixed<18,6>`` (with it); only the fraction bits count, words have the
        board's width.
    samples : int, optional
        Samples that the data memory holds; as many as were given to calibrate, as far as the board has room, if
        None. Samples that do not fit are streamed, 0 streams all.
    like : Design, optional
        Compile for this design's hardware, so that its bitstream serves the new network too.

    Raises
    ------
    CompileError, DesignMismatch
    """
    if not (isinstance(lanes, int) and 1 <= lanes <= 128):
        raise CompileError(f"lanes must be a whole number from 1 to 128, not {lanes!r}")
    case = _case(model, dynamics, rule, calibrate, steps, find_board(board), lanes, samples, like)
    formats = _formats(case, precision, like, calibrate is None)
    quantised = quantise(case, formats, _segments(case, like), _accumulator(case, like), case.learn)
    hardware = _hardware(case, formats, quantised, like)
    program = _program(case, hardware, quantised)
    if len(program.words) > hardware.depths.program:
        depths = dataclasses.replace(hardware.depths, program=size(len(program.words)))
        hardware = dataclasses.replace(hardware, depths=depths)
    if like is not None and hardware != like.hardware:
        raise DesignMismatch("the network does not fit this hardware: "
                             + "; ".join(_differences(hardware, like.hardware)))
    _advise(case, formats)
    formats = dataclasses.replace(formats, fractions=quantised.circuits.fractions)
    design = _design(case, formats, quantised, hardware, program)
    return _calibrated(design, case, like) if case.learn else design


def _advise(case: _Case, formats: Formats) -> None:
    """Warn of inputs so large that the last bit of their weights shows."""
    largest = float(np.abs(case.samples.inputs).max(initial=0.0))
    if any(b.name == "drive" for b in case.plan.blocks) and largest * 2.0 ** -formats["drive"] > 2.0**-9:
        warnings.warn(f"inputs reach {largest:g}, and one unit of an input weight's last place moves a row by "
                      f"{largest * 2.0 ** -formats['drive']:.2g}: divide the inputs by {largest:g}", stacklevel=3)


def _case(model, dynamics: Leapfrog, rule: HamiltonianEcho | None, calibrate, steps: int | None, target: Board,
          lanes: int, room: int | None, like: Design | None) -> _Case:
    graph = folded(capture(model))
    for state, kinetic in graph.kinetic.items():
        if kinetic != mul(0.5, power(var("p"), 2)):
            raise CompileError("kinetic: only p**2 / 2 is built on the chip yet; scale the state, not "
                               f"{kinetic} of {state}")
    cost_at = rule and ("last" if rule.cost_at == "last" else "every")
    if rule is not None and not graph.cost:
        raise CompileError("a rule needs a cost: give the model a method cost(q, y), or compile with rule=None")
    if graph.readout is not None and any(t.source not in map(var, graph.states) for t in graph.readout.terms):
        raise CompileError("predict: a readout of functions of the states is not built on the chip yet; return "
                           f"R q + b, not {' + '.join(str(t.source) for t in graph.readout.terms)}")
    x, y = _data(graph, calibrate, steps, cost_at)
    flow = derive(graph, float(dynamics.dt), rule is not None)
    passes = tuple(select(flow, tuple(graph.states)))
    samples = run_calibration(graph, passes, flow, x, y, dynamics.dt, dynamics.substeps, cost_at)
    agree(graph, flow, passes, samples, dynamics.dt, rule is not None)
    scale = 1.0 / x.shape[1] if rule and rule.cost_at == "mean" else 1.0
    timing = Dynamics(float(dynamics.dt), dynamics.substeps, x.shape[1], cost_at, scale)
    width = like.hardware.lanes if like else lanes
    record = x.shape[1] * graph.inputs + y.shape[1] * y.shape[2] * (rule is not None)
    used = {n for p in passes for e in (p.expr, *(e for _, e in p.learn)) if e is not None for n in e.variables()}
    vectors = tuple(sorted(used & set(flow.values)))
    return _Case(graph, flow, passes, vectors, samples, timing, target, width, rule is not None,
                 plan(graph, flow, passes, width), (len(x) if room is None else room) * record)


def _data(network: Graph, calibrate, steps: int | None, cost_at: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Checked (batch, steps, inputs) and (batch, read-outs, outputs) float64 arrays."""
    if calibrate is None:
        if steps is None:
            raise CompileError("give calibrate=(X, Y), or steps= with the number of input rows per sample")
        generator = np.random.default_rng(0)
        x = generator.uniform(-1, 1, (_SAMPLES, steps, network.inputs)).round(3)
        rows = steps if cost_at == "every" else 1
        return x, (generator.uniform(-1, 1, (_SAMPLES, rows, network.outputs)) > 0).astype(float)
    x = check_array("X", calibrate[0], 3, (None, None, network.inputs), "(batch, steps, inputs)")
    if calibrate[1] is None:
        if cost_at is not None:
            raise CompileError("calibrate=(X, Y) needs Y for a rule, not None")
        return x, np.zeros((len(x), 1, network.outputs))
    if cost_at == "every":
        return x, check_array("Y", calibrate[1], 3, (len(x), x.shape[1], network.outputs), "(batch, steps, outputs)")
    return x, check_array("Y", calibrate[1], 2, (len(x), network.outputs), "(batch, outputs)")[:, None]


def check_array(name: str, value, dimensions: int, shape: tuple[int | None, ...], text: str) -> np.ndarray:
    """``value`` as a finite float64 array of the shape; None fits any size."""
    array = np.asarray(value, np.float64)
    if array.ndim != dimensions or any(want is not None and want != got
                                       for want, got in zip(shape, array.shape, strict=True)) or not array.size:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise CompileError(f"{name} must have shape {text} = ({wanted}), not {array.shape}")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise CompileError(f"{name} must be finite; {name}{list(place)} is {array[place]}")
    return array


def _formats(case: _Case, precision: Mapping[str, str] | str, like: Design | None, uncalibrated: bool) -> Formats:
    if like is not None:
        return Formats(dict(like.fractions), like.hardware.data_width, {k: tuple(v) for k, v in like.lowered.items()})
    formats = choose_formats(case)
    fractions = dict(formats.fractions)
    if uncalibrated:
        fractions["state"] = min(case.board.width - 6, fractions["state"])
    if isinstance(precision, str) and precision != "auto":
        raise CompileError(f'precision must be "auto" or a mapping of names to formats, not {precision!r}')
    named = [n for n in (*fractions, *case.flow.lengths) if n not in case.graph.states]
    for name, text in (() if isinstance(precision, str) else precision.items()):
        if name not in named:
            raise CompileError(f"precision names are {', '.join(dict.fromkeys(named))}, not {name!r}")
        fractions[name] = Format.parse(text).frac
    fractions |= {s: fractions["state"] for s in case.graph.states}
    return dataclasses.replace(formats, fractions=fractions)


def _segments(case: _Case, like: Design | None) -> int:
    return like.hardware.segments if like else case.board.segments


def _accumulator(case: _Case, like: Design | None) -> int:
    if like is not None:
        return like.hardware.accumulator
    columns = max((b.columns for b in case.plan.blocks), default=2)
    rows = max((-(-b.rows // case.lanes) * case.lanes for b in case.plan.blocks), default=2)
    return 2 * case.board.width - 1 + math.ceil(math.log2(max(columns, rows, 2)))


def _hardware(case: _Case, formats: Formats, q: Quantised, like: Design | None) -> Hardware:
    f, w = formats.fractions, case.board.width
    depths = _depths(case, q.circuits)
    if like is not None:
        given = like.hardware.depths
        short = {name: getattr(depths, name) for name in ("weights", "units", "rows", "tiles", "outputs")
                 if getattr(depths, name) > getattr(given, name)}
        depths = dataclasses.replace(given, **short)
    response, shift = w, f["u"] - f["input"]
    return Hardware(
        width=w, lanes=case.lanes, learn=case.learn, accumulator=_accumulator(case, like),
        segments=_segments(case, like), tables=len(q.tables), data_width=formats.data_width, depths=depths,
        general=like.hardware.general if like else _general(q.circuits),
        input_shift=shift, drive_shift=f["drive"] + f["input"] + shift - f["z"],
        activate=q.activate, cost=q.cost, step=q.step, drift=q.drift,
        nudge_shift=like.hardware.nudge_shift if like else f["readout"] + w - _NUDGE - (f["state"] - 3),
        delta_shift=like.hardware.delta_shift if like else response - (w - _NUDGE),
        readout_shift=like.hardware.readout_shift if like else 0,
        vectors=tuple(case.units > 1 and np.size(case.flow.values[name]) == 1
                      for name in case.vectors) if like is None or case.units > 1 else like.hardware.vectors,
    )


def _general(circuits: Circuits) -> bool:
    """Whether a sweep needs an offset, a choice of circuit, or another way for its result than the built-in one."""
    return any(s.kind or s.source or s.first or s.second or s.place or s.tile or s.drive or s.value or s.force
               or (s.rows and s.opcode != Opcode.FORWARD) for s in circuits.sweeps)


def _depths(case: _Case, circuits: Circuits) -> Depths:
    n, tiles = case.graph, [-(-b.rows // case.lanes) for b in case.plan.blocks] or [1]
    outputs = -(-n.outputs // case.lanes) * case.lanes
    words = 2 * n.outputs if n.readout else 2 * case.units  # of one read-out of a pair
    words *= case.dynamics.steps if case.dynamics.cost_at == "every" else 1
    if words > case.board.data_bits // 32:
        raise ResourceError(f"the outputs of two samples must fit the result memory: read out fewer steps or outputs; "
                            f"{case.board.name} has room for {case.board.data_bits // 32} words, not {words}")
    record = max(1, case.dynamics.steps * n.inputs + (case.samples.targets[0].size if case.learn else 0))
    data = min(size(max(case.capacity, 16)), case.board.data_bits // 4)
    return Depths(
        weights=size(max(case.plan.used, 16)), units=size(max(circuits.elements, n.inputs + 1)),
        rows=size(max(max(tiles) * case.lanes, circuits.drives)),
        tiles=size(max(*tiles, circuits.tiles)), outputs=size(max(outputs, 2)),
        data=data, order=min(size(max(data // record, 64)), 4096), results=max(case.board.results, size(words)),
        program=256)


def _program(case: _Case, hardware: Hardware, q: Quantised) -> Program:
    blocks = {b.name: b for b in case.plan.blocks}
    updates = {f"{c.block}.{c.start}": (blocks[c.block], c.start, c.count)
               for c in case.plan.columns if any(name in case.graph.learned for name, *_ in c.parameters)}
    vectors = tuple(int(np.size(case.flow.values[name])) for name in case.vectors)
    return build(Schedule(hardware, case.dynamics, case.units, case.graph.inputs, case.graph.outputs, blocks,
                          tuple(q.circuits.sweeps), _drives(case, q.circuits), updates, vectors if case.learn else (),
                          case.plan.used))


def _drives(case: _Case, circuits: Circuits) -> dict[str, int]:
    """Blocks whose sums are kept over the substeps, with their first row."""
    return {case.plan.names[p.drive]: s.drive for p, s in zip(case.passes, circuits.sweeps, strict=True)
            if p.drive}


def _differences(wanted: Hardware, given: Hardware) -> list[str]:
    """Fields in which the hardware that the network needs differs."""
    lines = []
    for f in dataclasses.fields(Hardware):
        a, b = getattr(wanted, f.name), getattr(given, f.name)
        if f.name == "depths":
            lines += [f"{d.name} needs {getattr(a, d.name)} words, not {getattr(b, d.name)}"
                      for d in dataclasses.fields(Depths) if getattr(a, d.name) != getattr(b, d.name)]
        elif a != b:
            simple = isinstance(a, (int, bool))
            lines.append(f"{f.name} must be {a}, not {b}" if simple else f"{f.name} is another circuit")
    return lines


def _design(case: _Case, formats: Formats, q: Quantised, hw: Hardware, program: Program) -> Design:
    f, n = formats.fractions, case.graph
    response = hw.width - _NUDGE + hw.delta_shift
    placements = _placements(case, f, q, hw)
    vectors = tuple(
        Vector(name, int(np.size(case.flow.values[name])), name in n.learned, f[f"vector{i}"] + hw.width,
               -case.dynamics.cost_scale * _half(f, hw) * case.dynamics.dt * 2.0 ** -q.circuits.gradients.get(name, 0)
               if case.learn else 0.0)
        for i, name in enumerate(case.vectors))
    used = {name for p in placements for name in p.parameters} | set(case.vectors)
    return Design(
        hardware=hw, dynamics=case.dynamics, units=case.units, inputs=n.inputs,
        outputs=n.outputs if n.readout else case.units,
        learned=tuple(sorted(n.learned)), blocks=case.plan.blocks, placements=placements, vectors=vectors,
        states=dict(n.states), sweeps=tuple(q.circuits.sweeps), kept_drives=_drives(case, q.circuits),
        passes=case.passes, matrices=case.flow.matrices, drives=case.flow.drives,
        program=program.words, entries=program.entries, rates=program.rates, tables=q.tables,
        values={k: np.asarray(v, np.float64) for k, v in case.flow.values.items() if k in used}, fractions=f,
        lowered=q.lowered, response=response, gain=0, cost=cost(n) if case.learn else None, report=_report(case))


def _half(f: dict[str, int], hw: Hardware) -> float:
    """1 / (2 * eps) of a sample with exponent 0: eps = 2^(exponent) / (2 * this)."""
    return 0.5 * 2.0 ** -(f["readout"] + f["delta"] - hw.delta_shift - hw.nudge_shift - f["state"])


def _placements(case: _Case, f: dict[str, int], q: Quantised, hw: Hardware) -> tuple[Placement, ...]:
    grain = {case.plan.names[p.matrix]: f[p.t] + f[p.x] for p in case.passes
             if p.opcode == Opcode.OUTER}
    placements, scale = [], case.dynamics.cost_scale
    for c in case.plan.columns:
        if not case.learn:
            gradient = 0.0
        elif c.block == "readout":
            gradient = scale * c.scale * 2.0 ** -(f["delta"] - hw.readout_shift + f["state"])
        else:
            gradient = -scale * c.scale * _half(f, hw) * 2.0 ** -grain.get(c.block, 0)
        placements.append(Placement(
            c.block, c.start, c.count, tuple(n for n, *_ in c.parameters), tuple(t for _, t, _ in c.parameters),
            tuple(w for *_, w in c.parameters), tuple(n in case.graph.learned for n, *_ in c.parameters), c.scale,
            f[c.block] + hw.width, gradient))
    return tuple(placements)


def _report(case: _Case) -> dict:
    ranges = {name: float(np.abs(v).max(initial=0.0)) for name, v in case.samples.values.items()}
    return {
        "board": case.board.name,
        **describe(case.graph, cost(case.graph), case.learn),
        "ranges": {**ranges, "q": max(ranges[s] for s in case.graph.states), "p": case.samples.p,
                   "z": max([ranges[p.acc] for p in case.passes if p.opcode == Opcode.FORWARD], default=0.0),
                   "y": float(np.abs(case.samples.y).max())},
    }


def _calibrated(design: Design, case: _Case, like: Design | None) -> Design:
    """Shift the nudges (or, on given hardware, the response exponent) until the echoes part by 1/16..1/8 of a unit,
    and leave the gradient words room for growth."""
    from echolith.sim.data import words
    from echolith.sim.model import IntegerModel, Outcome
    from echolith.sim.weights import load

    rows = min(design.dynamics.steps, max(1, _STEPS // design.dynamics.substeps))
    short = dataclasses.replace(design.dynamics, steps=rows)
    keep = slice(0, _SAMPLES)
    targets = case.samples.targets[keep]
    x, y = words(design, case.samples.inputs[keep, :rows], targets[:, :rows])
    target = design.fractions["state"] - 4

    def learned() -> tuple[IntegerModel, Outcome]:
        model = IntegerModel(dataclasses.replace(design, dynamics=short))
        load(model, design.values)
        return model, model.learn(x, y)[1]

    model, out = learned()
    for _ in range(_SEARCH):
        error = out.response.bit_length() - 1 - target
        if out.wrapped:
            if out.first["phase"] != "echo":
                raise RangeError(f"a state wraps on the calibration data: {out.first}; give a wider state format or "
                                 f"a smaller dt, not {design.fractions['state']} fraction bits")
            error = max(error, 3)  # the nudge was far too strong
        elif out.response == 0 or error == 0:
            break
        if like is None:
            design = _shifted(design, error)
        else:
            design = dataclasses.replace(design, response=min(max(design.response - error, 0), 31))
        model, out = learned()
    longer = math.ceil(math.log2(design.dynamics.steps / rows))
    if like is None:
        design = _with_headroom(design, model, _HEADROOM + longer)
    return dataclasses.replace(design, gain=_gain(design, model, out.leading, _HEADROOM + longer))


def _gain(design: Design, model, leading: int, headroom: int) -> int:
    """Point of the gradient words that fills them up to the headroom; no sample's operands may be clipped."""
    w = design.hardware.width
    largest = max(int(np.abs(g).max(initial=0)) for g in (*model.gradients.values(), *model.vector_gradients))
    free = 2 * w - 2 - headroom - largest.bit_length()
    clear = min(design.response, design.hardware.readout_shift + w - 3) - max(leading.bit_length() - 1, 0)
    return max(0, min(free, clear))


def _with_headroom(design: Design, model, headroom: int) -> Design:
    """Gradient words 2^headroom below wrapping for a batch of the calibration data: momentum, growth, luck."""
    room = 2 * design.hardware.width - 2 - headroom
    own = model.gradients["readout"]
    others = [g for name, g in model.gradients.items() if name != "readout"] + model.vector_gradients
    excess = int(np.abs(own).max(initial=0)).bit_length() - room
    if excess > 0:
        hw = dataclasses.replace(design.hardware, readout_shift=excess)
        placements = tuple(dataclasses.replace(p, gradient_scale=p.gradient_scale * 2.0**excess)
                           if p.block == "readout" else p for p in design.placements)
        design = dataclasses.replace(design, hardware=hw, placements=placements)
    excess = max((int(np.abs(g).max(initial=0)).bit_length() for g in others), default=0) - room
    return design if excess <= 0 else _scaled_down(design, excess)


def _shifted(design: Design, bits: int) -> Design:
    """Nudges 2^bits times weaker."""
    hw = dataclasses.replace(design.hardware, nudge_shift=design.hardware.nudge_shift + bits)
    return _rescale(design, hw, 2.0**bits, design.response)


def _scaled_down(design: Design, bits: int) -> Design:
    """The same nudges with gradient words 2^bits times smaller."""
    hw = dataclasses.replace(design.hardware, delta_shift=design.hardware.delta_shift + bits)
    return _rescale(design, hw, 2.0**bits, design.response + bits)


def _rescale(design: Design, hw: Hardware, factor: float, response: int) -> Design:
    placements = tuple(dataclasses.replace(p, gradient_scale=p.gradient_scale * (factor if p.block != "readout" else 1))
                       for p in design.placements)
    vectors = tuple(dataclasses.replace(v, gradient_scale=v.gradient_scale * factor) for v in design.vectors)
    return dataclasses.replace(design, hardware=hw, placements=placements, vectors=vectors, response=response)
