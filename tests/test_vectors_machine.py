"""The general machine: kinds, offsets, second operands, results to vectors and rows. Hand-written and random programs
on a small core against `oracle.Oracle`, every memory word and every cycle."""

import random
import subprocess

import numpy as np
import pytest
from oracle import Oracle

from echolith.compiler.cycles import cycles
from echolith.compiler.design import Depths, Hardware
from echolith.compiler.isa import Context, Dest, Opcode, Setting, exec_word, loop_word, set_word
from echolith.compiler.pipeline import Builder
from echolith.compiler.registers import Bank, address
from echolith.host.link import Link
from echolith.host.transports import PipeTransport
from echolith.sim.arith import gradient_width
from echolith.sim.simulator import build, have_compiler

if not have_compiler():
    pytest.skip("needs Verilator, make, perl and a C++ compiler", allow_module_level=True)

W, LANES, ACC, SEGMENTS = 18, 3, 41, 4
PAIR, ECHO_A, ECHO_B, INPUT = Context
CASES = {}


def activations():
    """The drive added; a table of the sum alone, which takes longer."""
    b = Builder(("acc", ACC), ("drive", W))
    yield b.build(t=b("sat", b("add", b("rnd", 0, n=16), 1), n=W))
    b = Builder(("acc", ACC))
    yield b.build(t=b("sat", b("table", b("sat", b("rnd", 0, n=15), n=W), n=0), n=W))


def cost():
    b = Builder(("acc", ACC), ("target", 10))
    y = b("sat", b("rnd", 0, n=18), n=W)
    return b.build(y=y, delta=b("sat", b("sub", y, b("shl", 1, n=3)), n=W))


def steps():
    """A plain force; one of two operands and a shared parameter; one of a table and a parameter per unit."""
    b = Builder(("acc", ACC), ("q", W))
    yield b.build(force=b("add", b("rnd", 0, n=16), 1))
    b = Builder(("acc", ACC), ("q", W), ("r", W), ("k1", W))
    product = b("mul", 1, 2)
    force = b("add", b("add", b("rnd", product, n=14), b("rnd", 0, n=15)), b("rnd", b("mul", 1, 3), n=15))
    yield b.build(force=force, g1=b("rnd", product, n=2))
    b = Builder(("acc", ACC), ("q", W), ("k0", W))
    curve = b("table", 1, n=1)
    yield b.build(force=b("add", b("sub", b("rnd", b("mul", 2, curve), n=16), curve), b("rnd", 0, n=17)),
                  g0=b("rnd", b("mul", 1, 1), n=2))


def drifts():
    """A plain one; one with a parameter per unit and a table, which takes longer."""
    b = Builder(("p", W))
    yield b.build(d=b("rnd", b("mul", 0, b("const", n=11)), n=6))
    b = Builder(("p", W), ("k2", W))
    yield b.build(d=b("rnd", b("mul", 0, b("table", 1, n=2)), n=16), g2=b("rnd", b("mul", 0, 0), n=3))


def hardware(lanes=LANES, second=True, learn=True, index=64):
    """``second``: with the pipeline of two operands; hand-written programs need it, an index memory and repeats."""
    depths = Depths(weights=128, units=32, rows=32, tiles=32, outputs=16, data=16, order=2, results=512,
                    program=512, index=index)
    return Hardware(
        width=W, lanes=lanes, learn=learn, accumulator=ACC, segments=SEGMENTS, tables=3, data_width=10, depths=depths,
        input_shift=2, drive_shift=15, general=True, activate=tuple(activations()), cost=cost() if learn else None,
        step=tuple(p for p in steps() if second or ("r", W) not in p.inputs), drift=tuple(drifts()),
        nudge_shift=15, delta_shift=4, readout_shift=2, vectors=(False, True, False), repeat=bool(index))


class Machine:
    """The simulated chip beside its oracle; memories without a way out stay in both from program to program."""

    def __init__(self, **options):
        self.hw = hardware(**options)
        pipe = subprocess.PIPE
        process = subprocess.Popen([str(build(self.hw))], stdin=pipe, stdout=pipe, stderr=pipe)
        self.link = Link(PipeTransport(process), timeout=10.0)
        self.random = np.random.default_rng(7)
        tables = [self.words(W - 1, (1 << SEGMENTS, 2)) for _ in range(3)]
        self.put(Bank.TABLES, np.stack(tables))
        self.put(Bank.ORDER, np.zeros(2, np.int64))
        index = self.random.integers(11, 21, self.hw.depths.index)  # elements that a random program does not move
        if len(index):
            self.put(Bank.INDEX, index)
        self.oracle = Oracle(self.hw, [t.astype(object) for t in tables], index.tolist())

    def words(self, bits, shape):
        """Of all sizes."""
        found = self.random.integers(-(1 << bits - 1), 1 << bits - 1, shape)
        return found >> self.random.integers(0, bits // 2, shape)

    def put(self, bank, words, wide=False):
        flat = words.reshape(-1).astype(np.int64)
        flat = np.stack([flat, flat >> 32], axis=1).reshape(-1) if wide else flat
        self.link.write(address("bank"), bank, 0)
        self.link.push((flat & 0xFFFFFFFF).astype(np.uint32))

    def take(self, bank, shape, bits, wide=False):
        count = int(np.prod(shape)) * (1 + wide)
        self.link.write(address("bank"), bank, 0)
        words = self.link.pull(count, lambda done: self.link.write(address("pointer"), done)).astype(np.int64)
        words = words[0::2] | words[1::2] << 32 if wide else words
        return (((words & (1 << bits) - 1) ^ 1 << bits - 1) - (1 << bits - 1)).reshape(shape)

    def fill(self):
        """New weights and states, no gradients, new exponents."""
        o = self.oracle
        for bank, name, bits, wide in ((Bank.POSITIONS, "v", W, False), (Bank.MOMENTA, "p", W, False),
                                       (Bank.WEIGHTS, "weights", 2 * W, True), (Bank.VECTORS, "vectors", 2 * W, True)):
            words = self.words(bits, getattr(o, name).shape)
            if name == "vectors":
                words[1] = words[1, 0]  # shared
            self.put(bank, words, wide)
            setattr(o, name, words.astype(object))
        for bank, name in ((Bank.GRADIENTS, "gradients"), (Bank.VECTOR_GRADIENTS, "vector_gradients")):
            getattr(o, name)[:] = 0
            self.put(bank, np.zeros(getattr(o, name).shape, np.int64), True)
        o.gain, o.range = int(self.random.integers(0, 4)), int(self.random.integers(16, 26))
        self.link.write(address("range"), o.range, o.gain)

    def check(self, *words):
        """Run a program on both and compare everything."""
        words = (loop_word(Opcode.NEXT), *words, loop_word(Opcode.HALT))
        self.fill()
        self.put(Bank.PROGRAM, np.array(words, np.int64))
        self.oracle.run(words)
        assert len(self.oracle.results) <= self.hw.depths.results
        self.link.write(address("entry"), 0, 1)
        self.link.write(address("control"), 1)
        while self.link.read(address("status"))[0] & 1:
            pass
        o = self.oracle
        for bank, name, bits, wide in (
                (Bank.POSITIONS, "v", W, False), (Bank.MOMENTA, "p", W, False),
                (Bank.GRADIENTS, "gradients", gradient_width(W), True),
                (Bank.VECTOR_GRADIENTS, "vector_gradients", gradient_width(W), True)):
            want = getattr(o, name)
            got = self.take(bank, want.shape, bits, wide)
            if name == "vector_gradients":  # a shared word is everywhere
                got[1, 1:] = 0
            wrong = np.argwhere(want != got)
            assert not len(wrong), f"{name}{wrong[:6].tolist()}: expected {want[tuple(wrong[0])]}, " \
                                   f"got {got[tuple(wrong[0])]}"
        if o.results:
            assert self.take(Bank.RESULTS, len(o.results), W).tolist() == o.results
        read = {name: int(self.link.read(address(name))[0]) for name in ("flags", "response", "leading", "cycles")}
        assert read == {"flags": o.flags, "response": o.response, "leading": o.leading,
                        "cycles": cycles(words, 0, self.hw)}


@pytest.fixture(scope="module")
def machines():
    """One for each choice of options, built when first asked for."""
    found = {}

    def get(**options):
        if str(options) not in found:
            found[str(options)] = Machine(**options)
        return found[str(options)]

    yield get
    for machine in found.values():
        machine.link.close()


def sets(**settings):
    return [set_word(Setting[name.upper()], value) for name, value in settings.items()]


def block(rows, columns, base=0, lanes=LANES, **settings):
    """Point the sweeps at a block."""
    return sets(base=base, columns=columns, tiles=-(-rows // lanes), rows=rows, **settings)


def costs():
    """Different exponents for both samples."""
    return [*block(3, 4), exec_word(Opcode.FORWARD, PAIR, Dest.COST)]


def program(function):
    CASES[function.__name__] = function
    return function


@program
def forward_to_values_with_drives():
    yield from block(7, 3, base=20, drive=5, source=2)
    yield exec_word(Opcode.FORWARD, PAIR, Dest.DRIVE, source=True)
    yield from block(7, 5, base=3, source=9, place=20)
    yield exec_word(Opcode.FORWARD, PAIR, Dest.VALUE)
    yield from sets(place=1)
    yield exec_word(Opcode.FORWARD, ECHO_B, Dest.VALUE, kind=1)
    yield from block(1, 1, place=31)
    yield exec_word(Opcode.FORWARD, ECHO_A, Dest.VALUE)


@program
def maps_of_two_operands():
    yield from sets(length=5, first=3, second=12, place=22)
    yield exec_word(Opcode.UNITS, PAIR, kind=1, value=True)
    yield from sets(place=12)
    yield exec_word(Opcode.UNITS, ECHO_A, kind=1, value=True)  # in place of the second operand
    yield from sets(first=9, second=9, place=9)
    yield exec_word(Opcode.UNITS, ECHO_B, kind=1, value=True)  # a square in its own place
    yield from sets(length=1, place=0)
    yield exec_word(Opcode.UNITS, PAIR, kind=2, value=True)
    yield exec_word(Opcode.UNITS, ECHO_A, kind=1, value=True, spread=True)


@program
def maps_to_rows():
    yield from costs()
    for length, kind, context in ((1, 0, ECHO_A), (4, 1, ECHO_B), (6, 2, ECHO_A), (7, 1, PAIR), (8, 0, ECHO_B)):
        yield from block(9, 4, length=9, tile=2, first=0)
        yield exec_word(Opcode.UNITS, context, rows=True, echo=True)  # something to be overwritten
        yield from block(length, 4, base=5, length=length, first=10, second=3, tile=2)
        yield exec_word(Opcode.UNITS, context, kind=kind, rows=True, echo=context != PAIR)
        yield from sets(source=6)
        yield exec_word(Opcode.OUTER, context)
        yield from sets(first=20)
        yield exec_word(Opcode.TRANSPOSED, context, drift=True, echo=context != PAIR)


@program
def maps_to_values_and_rows():
    yield from costs()
    yield from block(5, 2, length=5, first=4, second=13, place=24, tile=7)
    yield exec_word(Opcode.UNITS, ECHO_A, kind=1, value=True, rows=True, echo=True, learn=True)
    yield exec_word(Opcode.OUTER, ECHO_A, source=True)


@program
def forces_of_passes():
    yield from sets(length=5, first=7, second=1)
    yield exec_word(Opcode.UNITS, PAIR, kind=1, force=True, drift=True)
    yield exec_word(Opcode.UNITS, ECHO_A, kind=2, force=True, reverse=True)
    yield exec_word(Opcode.UNITS, ECHO_B, kind=0, force=True, reverse=True, drift=True, spread=True, echo=True)
    yield exec_word(Opcode.UNITS, ECHO_B, kind=0, drift=True)
    yield exec_word(Opcode.UNITS, ECHO_B, emit=True)
    yield from sets(first=12)
    yield exec_word(Opcode.UNITS, ECHO_A, clear=True)
    yield exec_word(Opcode.UNITS, ECHO_A, check=True)


@program
def gathers():
    """Of either operand, of both, at the pace of a pass and of a sweep; learning from them."""
    yield from costs()
    yield from sets(length=6, first=40, second=30, place=23)
    for flags in ({"gather": True}, {"gather_second": True}, {"gather": True, "gather_second": True}):
        yield from sets(first=40 if "gather" in flags else 2, second=30 if "gather_second" in flags else 9)
        yield exec_word(Opcode.UNITS, ECHO_A, kind=1, value=True, **flags)
        yield exec_word(Opcode.UNITS, ECHO_B, kind=1, rows=True, echo=True, **flags)
        yield exec_word(Opcode.UNITS, ECHO_B, kind=1, learn=True, **flags)
    yield from sets(second=58, first=21)
    yield exec_word(Opcode.UNITS, PAIR, kind=1, force=True, drift=True, echo=True, gather_second=True)
    yield from block(6, 4, tile=0, second=3, place=27)
    yield exec_word(Opcode.TRANSPOSED, ECHO_B, kind=1, drift=True, echo=True, gather_second=True)
    yield from sets(first=11)
    yield exec_word(Opcode.TRANSPOSED, ECHO_B, kind=1, value=True, gather=True, gather_second=True)
    yield from sets(place=7)
    for context in (ECHO_A, PAIR):
        yield exec_word(Opcode.UNITS, context, kind=1, force=True, reverse=True, gather=True, gather_second=True)


@program
def repeated_sweeps():
    """Of two tiles with a row of their own each, of one word only, of one column."""
    yield from costs()
    yield from block(4, 3, base=50, place=16, length=24, tile=2, repeat=3)
    yield exec_word(Opcode.FORWARD, ECHO_B, Dest.VALUE, kind=1)
    yield exec_word(Opcode.FORWARD, PAIR, Dest.VALUE)
    yield exec_word(Opcode.UNITS, ECHO_B, rows=True, echo=True)
    yield exec_word(Opcode.OUTER, ECHO_B)
    yield exec_word(Opcode.TRANSPOSED, ECHO_B, kind=1, value=True)
    yield from sets(first=33)
    yield exec_word(Opcode.OUTER, ECHO_B, gather=True)
    yield from sets(place=22, repeat=1)
    yield exec_word(Opcode.FORWARD, ECHO_B, Dest.VALUE, gather=True)
    yield from block(5, 2, base=9, first=40, place=21, repeat=1)
    yield exec_word(Opcode.FORWARD, ECHO_A, Dest.VALUE, gather=True)
    yield from block(1, 1, base=7, repeat=6, source=11)
    yield exec_word(Opcode.OUTER, ECHO_B)
    yield from block(2, 1, base=9, repeat=2, source=3, first=20, second=4)
    yield exec_word(Opcode.TRANSPOSED, ECHO_B, kind=1, drift=True)
    yield exec_word(Opcode.FORWARD, ECHO_B, Dest.HIDDEN, echo=True)
    yield from block(3, 2, repeat=0, source=1)
    yield exec_word(Opcode.OUTER, ECHO_B)
    yield exec_word(Opcode.FORWARD, ECHO_B, Dest.VALUE)


@program
def backward_sweeps():
    for rows, columns in ((7, 5), (2, 3), (9, 1)):
        yield from block(rows, 4, base=40, tile=3, source=4)
        yield exec_word(Opcode.FORWARD, ECHO_A, Dest.HIDDEN, kind=1)
        yield exec_word(Opcode.FORWARD, PAIR, Dest.HIDDEN, kind=0)
        yield from block(rows, columns, base=11, tile=3, place=25, first=14, second=2)
        yield exec_word(Opcode.TRANSPOSED, PAIR, kind=1, value=True)
        yield exec_word(Opcode.TRANSPOSED, PAIR, kind=2, drift=True)
        yield from sets(into=9)
        yield exec_word(Opcode.TRANSPOSED, PAIR, kind=0, rows=True)
        yield from block(columns, 6, tile=9, first=8)
        yield exec_word(Opcode.TRANSPOSED, PAIR, kind=1, drift=True)


@program
def gradients_of_tiles_and_sources():
    yield from costs()
    for context in (ECHO_A, ECHO_B):
        yield from block(8, 5, base=9, tile=6, source=7)
        yield exec_word(Opcode.FORWARD, context, Dest.HIDDEN, kind=1, echo=True)
        yield exec_word(Opcode.OUTER, context)
        yield from block(8, 3, base=70, source=21)
        yield exec_word(Opcode.OUTER, context, source=True)


@program
def gradients_of_parameters():
    yield from costs()
    yield from sets(length=6, first=9, second=20)
    yield exec_word(Opcode.UNITS, ECHO_A, kind=2, learn=True)
    yield exec_word(Opcode.UNITS, ECHO_B, kind=1, learn=True, force=True, reverse=True, drift=True)
    yield exec_word(Opcode.UNITS, ECHO_B, kind=0, learn=True)
    yield from block(4, 5, tile=4)
    yield exec_word(Opcode.FORWARD, ECHO_B, Dest.HIDDEN, echo=True)
    yield exec_word(Opcode.TRANSPOSED, ECHO_B, kind=1, learn=True)
    yield from sets(length=2, first=17, place=3)
    yield exec_word(Opcode.UNITS, ECHO_A, kind=2, learn=True, value=True)


@program
def maxima():
    for length, place in ((1, 20), (2, 21), (7, 30)):
        yield from sets(length=length, first=3, second=12, place=place)
        yield exec_word(Opcode.UNITS, PAIR, kind=1, value=True, maximum=True)
        yield exec_word(Opcode.UNITS, ECHO_A, kind=2, value=True, maximum=True)
    yield from sets(place=15)
    yield exec_word(Opcode.UNITS, ECHO_A, kind=2, value=True)


@program
def drifts_with_masses():
    yield from costs()
    yield from sets(length=5, first=7, second=1)
    yield exec_word(Opcode.UNITS, ECHO_A, reverse=True, drift=True, drift_kind=1, spread=True, mass=True)
    yield exec_word(Opcode.UNITS, ECHO_B, reverse=True, drift=True, drift_kind=0, mass=True)
    yield exec_word(Opcode.UNITS, PAIR, kind=1, force=True, drift=True, drift_kind=1)
    yield exec_word(Opcode.UNITS, ECHO_B, kind=2, force=True, reverse=True, drift=True, drift_kind=1, learn=True,
                    mass=True)
    yield from block(4, 3, tile=4, first=2, second=12)
    yield exec_word(Opcode.FORWARD, ECHO_B, Dest.HIDDEN, echo=True)
    yield exec_word(Opcode.TRANSPOSED, ECHO_B, kind=1, drift=True, drift_kind=1, learn=True,
                    mass=True)


@program
def nudges():
    """Costs with an offset of tiles; nudges come without one and are used with one."""
    yield from block(4, 6, base=30, tile=8, source=3)
    yield exec_word(Opcode.FORWARD, PAIR, Dest.COST, emit=True)
    yield exec_word(Opcode.OUTER, PAIR)
    yield exec_word(Opcode.FORWARD, PAIR, Dest.COST, echo=True)
    yield from sets(first=5)
    yield exec_word(Opcode.TRANSPOSED, PAIR, 1)
    yield from sets(first=2, second=10, length=4)
    yield exec_word(Opcode.UNITS, ECHO_A, reverse=True, nudge=True, spread=True, drift=True)
    yield exec_word(Opcode.UNITS, ECHO_B, reverse=True, nudge=True, force=True, kind=1, drift=True)


@pytest.mark.parametrize("case", CASES)
def test_program(machines, case):
    for _ in range(2):
        machines().check(*CASES[case]())


def drawn(pick, hw):
    """Random settings, then commands on each other's heels. Elements below 11 move, second operands are these or
    below 21, results above."""
    rows, columns, first, tile = pick.randint(1, 9), pick.randint(1, 9), pick.randint(0, 2), pick.randint(0, 5)
    tile, into = pick.sample([0, 9], 2) if hw.lanes == 1 else (tile, tile + 4)
    yield from block(rows, columns, base=pick.randint(0, 40), lanes=hw.lanes, length=columns, tile=tile,
                     drive=pick.randint(0, 7), source=pick.randint(0, 11), first=first,
                     second=pick.choice([first, 11, 12]), place=pick.randint(21, 23), into=into)
    for _ in range(pick.randint(1, 5)):
        yield command(pick, hw)


def command(pick, hw):
    opcode = pick.choice([Opcode.FORWARD, Opcode.FORWARD, Opcode.TRANSPOSED, Opcode.TRANSPOSED, Opcode.UNITS,
                          Opcode.UNITS, Opcode.OUTER if hw.learn else Opcode.FORWARD])
    context = pick.choice([PAIR, ECHO_A, ECHO_B])
    echo, source = context != PAIR and pick.random() < 0.7, pick.random() < 0.3
    if opcode == Opcode.FORWARD:
        dest = pick.choice([Dest.DRIVE, Dest.HIDDEN, Dest.HIDDEN, Dest.VALUE] + [Dest.COST] * hw.learn)
        if dest == Dest.COST:
            return exec_word(opcode, PAIR, dest, echo=pick.random() < 0.5, emit=pick.random() < 0.5, source=source)
        return exec_word(opcode, context, dest, kind=pick.randint(0, 1), echo=echo, source=source)
    if opcode == Opcode.OUTER:
        return exec_word(opcode, context, source=source)
    if pick.random() < 0.1:
        return exec_word(opcode, PAIR, hw.learn) if opcode == Opcode.TRANSPOSED else \
            exec_word(opcode, context, **{pick.choice(["clear", "check", "emit"]): True})
    options = ["reverse", "drift"] + ["nudge", "learn", "mass"] * hw.learn + ["force"] * (opcode == Opcode.UNITS)
    result = pick.choice([{}, {}, {"value": True}, {"rows": True}, {"value": True, "rows": True}])
    if hw.depths.index:
        options += ["gather", "gather_second"]
    largest = result == {"value": True} and opcode == Opcode.UNITS and pick.random() < 0.3
    return exec_word(opcode, context, kind=pick.randrange(len(hw.step)), echo=echo, spread=pick.random() < 0.2,
                     drift_kind=pick.randint(0, 1), maximum=largest, **result,
                     **{name: pick.random() < 0.5 for name in options})


@pytest.mark.parametrize("options", [{}, {"lanes": 1, "second": False},
                                     {"lanes": 4, "learn": False, "index": 0}], ids=str)
def test_random_programs(machines, options):
    machine = machines(**options)
    for seed in range(30):
        pick = random.Random(seed)
        machine.check(*(costs() if machine.hw.learn and seed % 2 else ()),
                      *(word for _ in range(8) for word in drawn(pick, machine.hw)))
