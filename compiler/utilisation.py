"""How much of the array's time is useful: the multiplications of the minimal algorithm over those it could have done.

Counted as useful, with K = steps * substeps integrator steps, the words that one force multiplies (every block once per
sweep), its kept drives B u + b and the readout C (outputs x columns, of which ``units`` face the units):

    predict   (K - 1) forces; no force after the last step
              one pass through every kept drive per input row that a force sees
              one pass through C per read-out
              of a stack, what lies between its layers once per force
    learn     the above, and for each of the two nudged copies
              (K - 1) forces, and as many outer products for every learned block
              one drive per input row, shared by the copies
              one outer product for C per read-out of the forward run
              the transposed pass of C that turns a cost derivative, kept from there, into a nudge, for both copies
              of a stack also the forces of copy 0 and what lies between layers, which it alone has, and the way
              back between layers with its outer products
    update    one multiplication per learned word of the array, once per batch

Not counted as useful: padding of tiles, pipelines filling and draining, instruction fetch, and copy 0, the un-nudged
echo that proves on some batches that the return was exact.
"""

from dataclasses import dataclass

from echolith.compiler.cycles import cycles
from echolith.compiler.design import Design
from echolith.compiler.isa import Opcode

__all__ = ["Work", "copy0", "utilisation", "work"]


@dataclass(frozen=True)
class Work:
    """Useful multiplications: per predicted sample, per learned sample (update not included), per update."""

    predict: int
    learn: int
    update: int


@dataclass(frozen=True)
class _Sizes:
    """Words of the blocks, steps and read-outs of a sample."""

    force: int  # multiplied by one force
    outer: int  # multiplied by its outer products
    drive: int
    readout: int
    nudge: int  # words of the readout that face the units
    forces: int
    driven: int  # input rows that a force sees
    reads: int
    feed: int = 0  # of a stack: multiplied between layers before a force
    handed: int = 0  # by contrasts and what follows from them, in a step back


def _sizes(design: Design) -> _Sizes:
    words = {b.name: b.rows * b.columns for b in design.blocks}
    d, rows = design.dynamics, {b.name: b.rows for b in design.blocks}
    forces = d.steps * d.substeps - 1
    swept = [(s.opcode, words[s.block] * (s.repeat + 1)) for s in design.sweeps if s.block and not s.contrast]
    force = sum(n for opcode, n in swept if opcode in (Opcode.FORWARD, Opcode.TRANSPOSED))
    outer = sum(n for opcode, n in swept if opcode == Opcode.OUTER)
    read, nudge = words.get("readout", 0), rows.get("readout", 0) * design.units
    if design.reads:
        read, nudge = (sum(words[s.block] * (s.repeat + 1) for s in found if s.block and s.block != "readout")
                       for found in (design.reads, design.backs))
    feed = sum(words[s.block] * (s.repeat + 1) for s in design.feeds if s.block)
    between = (*(s for s in design.sweeps if s.contrast), *design.errors)
    handed = sum(words[s.block] * (s.repeat + 1) for s in between if s.block)
    return _Sizes(force, outer, sum(words[b] for b in design.kept_drives), read, nudge, forces,
                  -(-forces // d.substeps), design.result_rows, feed, handed)


def work(design: Design) -> Work:
    """Multiplications of the minimal algorithm."""
    s = _sizes(design)
    predict = s.forces * (s.force + s.feed) + s.driven * s.drive + s.reads * s.readout
    if not design.hardware.learn:
        return Work(predict, 0, 0)
    costs = s.reads * (s.readout + s.nudge)
    update = sum(p.columns * design.block(p.block).rows for p in design.placements if any(p.learned))
    if design.rule.counted:  # no copies: outer products on both ways
        echo = s.forces * (s.force + 2 * s.outer) + s.driven * s.drive
        return Work(predict, design.rule.runs * (predict + echo + costs), update)
    echo = 2 * s.forces * (s.force + s.outer) + s.driven * s.drive
    if design.feeds:
        echo += s.forces * (s.force + s.feed + s.handed)
    return Work(predict, predict + echo + costs, update)


def copy0(design: Design) -> int:
    """Multiplications of the un-nudged echo of one sample."""
    s = _sizes(design)
    if design.feeds:  # counted with the sample: nothing could be learned without it
        return 0
    if design.rule.counted:  # a run of its own
        return design.rule.runs * (2 * s.forces * (s.force + s.outer) + 2 * s.driven * s.drive)
    return s.forces * s.force


def utilisation(design: Design, batch: int, *, with_copy0: bool = False) -> float:
    """Useful multiplications over cycles times multipliers, of a batch learned and its update; of a batch predicted
    where the hardware cannot learn. ``with_copy0``: of a batch with the exactness check, which counts as useful too."""
    pairs, found, hw = -(-batch // 2), work(design), design.hardware
    if not hw.learn:
        spent = cycles(design.program, design.entries["predict"], hw, pairs)
        return batch * found.predict / (spent * 2 * hw.lanes)
    entry = "learn" if with_copy0 else design.learning(1)
    spent = cycles(design.program, design.entries[entry], hw, pairs * design.rule.runs)
    spent += cycles(design.program, design.entries["update"], hw)
    useful = batch * (found.learn + (copy0(design) if with_copy0 else 0)) + found.update
    return useful / (spent * 2 * hw.lanes)
