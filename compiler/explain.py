"""A design in words: what was understood, what was derived, what will run where."""

from collections.abc import Iterator

import numpy as np

from echolith.compiler.damping import FACTORS
from echolith.compiler.design import Design, Placement
from echolith.compiler.estimate import BATCH, estimate, memories
from echolith.compiler.formats import Format
from echolith.compiler.isa import Opcode
from echolith.compiler.resources import KINDS
from echolith.compiler.sweep import Sweep

__all__ = ["estimate", "explain", "stability"]

_LABEL = 26
_NAMES = {"HamiltonianEcho": "Hamiltonian echo", "LagrangianEcho": "Lagrangian echo, final boundary condition",
          "EchoBackpropagation": "Hamiltonian echo backpropagation"}
_SCHEME = "two-sided, of what a chip can run the cheapest within the gates: `echolith bench passes`"


def explain(design: Design) -> str:
    """The design for humans: energy, forces, updates, formats, schedule, memories, figures. Ends without newline."""
    sections = {
        "network": _network(design), "energy as understood": _lines(design, "energy"),
        "derived": _lines(design, "derived"),
        "formats": _formats(design), "schedule": _schedule(design), "memory": _memory(design),
        "figures": _figures(design),
    }
    lines = []
    for title, rows in sections.items():
        lines += [title, *(f"  {label:<{_LABEL}}{text}" for label, text in rows), ""]
    return "\n".join(lines[:-1])


def stability(design: Design) -> float:
    """dt^2 * lambda_max of the energy's Hessian; leapfrog needs less than 4. Found at compile on the calibration data
    if there were any, else along random inputs."""
    known = design.report.get("dt2_lambda_max")
    if known is not None:
        return float(known)
    from echolith.sim.stability import curvature

    reach = 2.0 ** (design.hardware.input_bits - 1 - design.fractions["input"])
    shape = (2, design.dynamics.steps, design.inputs)
    return curvature(design, design.values, np.random.default_rng(0).uniform(-reach / 2, reach / 2, shape))


def _network(design: Design) -> Iterator[tuple[str, str]]:
    d, hw = design.dynamics, design.hardware
    factors = FACTORS if design.damping is not None else 0
    inputs = f"{design.inputs - factors} inputs" + f" and {factors} factors" * (factors > 0)
    yield "sizes", f"{design.units} units, {inputs}, {design.outputs} outputs"
    yield "dynamics", (f"leapfrog, dt = {d.dt:g}, {d.steps} input rows x {d.substeps} substeps = "
                       f"{d.steps * d.substeps} steps")
    when = "mean" if d.cost_scale != 1 else d.cost_at
    when = f'"{when}"' + ", targets may be masked" * (design.missing is not None)
    if (damping := design.damping) is not None:
        yield "dissipation", (f"momenta decay by exp(-{damping.decay:.4g}) a step: positions are the states times "
                              f"{damping.largest:g} and the second factor, inputs those given times the first")
    name = _NAMES[design.rule.name] + (", + and - averaged" if design.rule.counted else "")
    yield "rule", (f"{name}, cost at {when}" if hw.learn else "none: inference only")
    yield "learned", ", ".join(design.learned) if hw.learn and design.learned else "nothing"
    for made in design.derived if hw.learn else ():
        computed = "gradient() goes through it, fit() refuses"
        moved = made.moves and not design.computed
        yield "computed on the host", f"{made.name}: {'elements of a parameter' if moved else computed}"
    yield "board", f"{design.report['board']}, {hw.lanes} lanes"


def _owners(design: Design, block: str) -> list[Placement]:
    return [p for p in design.placements if p.block == block]


def _lines(design: Design, section: str) -> Iterator[tuple[str, str]]:
    yield from design.report[section]


_WORDS = {"input": "inputs u", "target": "targets", "state": "states q, p", "z": "rows z", "output": "outputs y",
          "delta": "cost derivative"}


def _formats(design: Design) -> Iterator[tuple[str, str]]:
    hw, f = design.hardware, design.fractions
    for name, label in _WORDS.items():
        if name in f and (name not in ("target", "delta") or design.cost is not None):
            yield label, _format(hw.word(name), f[name])
        for state, bits in design.finer.items() if name == "state" else ():
            if bits:
                yield f"momenta of {state}", f"{_format(hw.word(name), f[name] + bits)}: they stay smaller"
    for b in design.blocks:
        names = ", ".join(n for p in _owners(design, b.name) for n in p.parameters)
        yield f"{b.name} weights", f"{_format(hw.width, f[b.name])} swept, {hw.width} more bits kept   ({names})"
    for i, v in enumerate(design.vectors):
        yield v.parameter, f"{_format(hw.width, f[f'vector{i}'])} used, {hw.width} more bits kept"
    if hw.learn:
        shares = f"{_share(design.apart - 4)} to {_share(design.apart - 2)} of a state unit"
        yield "response", f"exponent {design.response}: echoes part by {shares}"


def _share(power: int) -> str:
    return f"{1 << power}" if power >= 0 else f"1/{1 << -power}"


def _format(width: int, frac: int) -> str:
    found = Format(width, frac)
    return f"{found!s:<7} within +-{found.limit:g}"


def _schedule(design: Design) -> Iterator[tuple[str, str]]:
    found = estimate(design)
    for b in design.blocks:
        yield b.name, (f"{b.rows} rows x {b.columns} columns in {design.tiles(b)} tiles of {design.hardware.lanes}, "
                       f"{design.tiles(b) * b.columns} words per lane")
    d = design.dynamics
    yield "force", "; ".join(filter(None, map(_sweep, design.sweeps)))
    if design.reads:
        yield "read-out", "; ".join(filter(None, map(_sweep, design.reads)))
    if design.backs:
        yield "behind its cost", "; ".join(filter(None, map(_sweep, design.backs)))
    yield "predict", f"per row {d.substeps} x the force with kick and drift, then the read-out"
    if design.hardware.learn:
        yield "learn", _learning(design)
        yield "update", "check every gradient word, apply, decay by momentum"
    for name, value in found["cycles"].items():
        yield f"cycles, {name.replace('_', ' a ')}", f"{value:,g}" if value < 1e5 else f"{value:,.0f}"


def _learning(design: Design) -> str:
    if design.rule.counted:
        return ("forward, counting the parameters' momenta down; the cost kicks the state; back, counting them up; in "
                f"1 of {design.dynamics.check} batches an un-nudged run there and back before it")
    checked = (" and copy 0" if design.learning(1) == "learn" else
               f", in 1 of {design.dynamics.check} batches copy 0 too,")
    between = ", what it hands down to the layers below" if design.errors else ""
    return f"predict, then echoes + and - ({_SCHEME}){checked} back: per step the force{between} and its outer products"


def _sweep(sweep: Sweep) -> str:
    to = [word for word, on in (("vector", sweep.value), ("rows", sweep.rows), ("drift", sweep.drift)) if on]
    name = Opcode(sweep.opcode).name.lower()
    return " ".join(filter(None, (name, sweep.block, "-> " + ", ".join(to) if to else "")))


def _memory(design: Design) -> Iterator[tuple[str, str]]:
    for m in memories(design):
        copies = f"{m.copies} x " if m.copies > 1 else ""
        yield m.name, f"{copies}{m.words} words of {m.bits} bits, {m.used} used"


def _figures(design: Design) -> Iterator[tuple[str, str]]:
    found = estimate(design)
    m = found["multipliers"]
    yield "multipliers", (f"{m['array']} in the array, {m['neuron_unit']} in the neuron unit; "
                          f"{m['available']} on the board")
    cells = found["resources"]
    for kind in ("lut", "ff", "bram"):
        about = f", within {100 * cells['error'][kind]:.0f} %" if kind in cells["error"] else ""
        yield KINDS[kind], f"{cells['used'][kind]:,} of {cells['available'][kind]:,}{about}"
    for name, speeds in found["samples_per_second"].items():
        yield f"{name} samples/s", (f"{speeds['chip']:,.0f} on chip at {found['clock_mhz']:g} MHz; at "
                                    f"{found['baud']:,} baud {speeds['held']:,.0f} fetching outputs, "
                                    f"{speeds['link']:,.0f} sending samples too")
    always = " but always run" if design.learning(1) == "learn" else ""
    batch = f"batches of {BATCH}, copy 0 not counted{always}" if design.hardware.learn else "predicting"
    yield "useful MACs", f"{found['mac_utilisation']:.3f} of what the multipliers could do ({batch})"
    if design.hardware.learn:
        yield "with copy 0", f"{found['mac_utilisation_with_copy0']:.3f} if the exactness check counts as useful"
    yield "dt^2 lambda_max", f"{stability(design):.3g}, stable below 4"
