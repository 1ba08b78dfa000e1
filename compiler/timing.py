"""Cycles from GO to DONE, known before simulation: the sequencer's costs and the sweeps' lengths.

`tails` restates nothing: each tail is the sum of the latencies of the parts that a sweep's last element passes.
"""

from dataclasses import dataclass

from echolith.compiler.design import Hardware
from echolith.compiler.isa import REUSE, Dest, Field, Opcode, Setting
from echolith.compiler.pipeline import latency

__all__ = ["INSTRUCTION", "Tails", "cycles", "operand_stage", "tails", "tree_levels"]

INSTRUCTION = 2  # cycles of every program word: fetch, decode
LAUNCH = 1  # further cycle of a word that starts a sweep

# Register stages of the array, from the cycle in which the sweep engine holds an address.
BROADCAST = 1  # addresses, controls and operands on their way to the lanes
SUM = BROADCAST + 4  # memory, operand, product, accumulator
NEXT = 2  # further cycles of NEXT: one order word a cycle
GRADIENT = BROADCAST + 6  # memory, operand, product, difference, sum, written
UPDATE = BROADCAST + 8  # memory, operand, product, sum, shifted, (weight read), sum, written
SCALE = 2  # of row operands and their twins: amount, shifted


@dataclass(frozen=True)
class Tails:
    """Cycles after the last address of a sweep until its last write is done."""

    drive: int
    hidden: int
    cost: int
    outer: int
    nudge: int
    step: int
    units: int
    update: int
    fetch: int
    value: int  # FORWARD to the vectors
    step_value: int  # TRANSPOSED, UNITS: to the vectors, to the row operands
    step_rows: int
    units_value: int
    units_rows: int


def tree_levels(lanes: int) -> int:
    """Register levels of the adder tree."""
    return (lanes - 1).bit_length()


def tails(hw: Hardware) -> Tails:
    drain = SUM + 1 + 2 * hw.lanes  # drain register, then two slots of every lane
    step = operand_stage(hw) + step_latency(hw)  # state read, pipeline, write
    sums = SUM + tree_levels(hw.lanes)
    # Registered result of slot b, written. A vector's gradient follows two cycles later: before any next sweep's.
    value = operand_stage(hw) + max(map(latency, hw.step)) + 2
    rows = SCALE if hw.learn and hw.cost else 0
    return Tails(
        drive=drain + 1,
        hidden=drain + max(map(latency, hw.activate)) + rows + 1,  # scaled copy, write
        cost=drain + (latency(hw.cost) + rows + 1 if hw.cost else 0),
        outer=GRADIENT,
        nudge=sums + 3,
        step=sums + step,
        units=step,
        update=UPDATE,
        fetch=2,
        value=drain + max(map(latency, hw.activate)),
        step_value=sums + value,
        step_rows=sums + value + rows + 2,  # row operand, scaled twin
        units_value=value - 1,  # the last element's own second cycle is slot b's
        units_rows=value + rows + 1,
    )


def operand_stage(hw: Hardware) -> int:
    """Cycles from an element's read to its operands at the step pipelines: a second operand is read after the first."""
    return 1 + any(name == "r" for pipeline in hw.step for name, _ in pipeline.inputs)


def step_latency(hw: Hardware) -> int:
    """Force, force and nudge, kick, drift, write of one element; slot b follows one cycle behind."""
    return max(map(latency, hw.step)) + 2 + max(map(latency, hw.drift)) + 1 + 2


def _duration(word: int, s: list[int], hw: Hardware, t: Tails) -> int:
    opcode, dest = word >> 28, word >> Field.DEST & 3
    columns, tiles, length = s[Setting.COLUMNS], s[Setting.TILES], s[Setting.LENGTH]
    walks = s[Setting.REPEAT] + 1 if hw.repeat else 1
    if opcode == Opcode.FORWARD:
        tail = {Dest.DRIVE: t.drive, Dest.HIDDEN: t.hidden, Dest.COST: t.cost, Dest.VALUE: t.value}[Dest(dest)]
        return walks * tiles * s[Setting.PERIOD] + tail
    if opcode == Opcode.OUTER:
        return walks * tiles * (max(columns, REUSE) if hw.repeat else columns) + t.outer
    if opcode == Opcode.TRANSPOSED:
        tail = t.nudge if dest & 1 else _result(word, t.step, t.step_value, t.step_rows)
        return walks * columns * max(tiles, 2) + tail
    if opcode == Opcode.UNITS:
        return 2 * length + _result(word, t.units, t.units_value, t.units_rows)
    if opcode == Opcode.UPDATE:
        return tiles * 2 * length + t.update
    return 2 * length + t.fetch  # FETCH


def _result(word: int, step: int, value: int, rows: int) -> int:
    """The tail by what becomes of a pass's results."""
    return rows if word >> Field.ROWS & 1 else value if word >> Field.VALUE & 1 else step


class _Walk:
    def __init__(self, program: tuple[int, ...], hw: Hardware, pairs: int):
        self.program, self.hw, self.pairs, self.tails = program, hw, pairs, tails(hw)
        self.settings = [0] * len(Setting)

    def run(self, pc: int) -> tuple[int, int]:
        """Cycles from ``pc`` to the END or HALT that closes it, and that word's index."""
        total = 0
        while True:
            word = self.program[pc]
            opcode, value = Opcode(word >> 28), word & 0xFFFFFF
            total += INSTRUCTION + (NEXT if opcode == Opcode.NEXT else 0)
            if opcode in (Opcode.HALT, Opcode.END):
                return total, pc
            if opcode in (Opcode.LOOP, Opcode.PAIRS):
                count = self.pairs if opcode == Opcode.PAIRS else value
                first, end = self.run(pc + 1)
                total += first + (count - 1) * self.run(pc + 1)[0] if count > 1 else first
                pc = end
            elif opcode == Opcode.SET:
                self.settings[word >> 24 & 15] = value
            elif opcode >= Opcode.FETCH:
                total += LAUNCH + _duration(word, self.settings, self.hw, self.tails)
            pc += 1


def cycles(program: tuple[int, ...], entry: int, hw: Hardware, pairs: int = 1) -> int:
    """Cycles of a run without stalls and without raised flags. Settings inside a loop are constants, so that all
    rounds after the first cost the same."""
    return _Walk(program, hw, pairs).run(entry)[0]
