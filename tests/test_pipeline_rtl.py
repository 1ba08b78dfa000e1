"""Random element-wise pipelines: the generated circuit says what `compiler.pipeline.evaluate` says, when it should."""

import dataclasses

import numpy as np
from amaranth.hdl import Module, Signal, signed
from amaranth.sim import Simulator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from echolith.compiler.pipeline import Builder, apply, evaluate, latency, schedule
from echolith.rtl.pipeline import ElementPipeline

WIDTH, SEGMENTS = 10, 4
WIDEST = 40  # bits of an intermediate result, so that int64 holds every product


class Draft:
    """A builder that knows how many bits the circuit of every result has; constants count none."""

    def __init__(self, inputs):
        self.builder = Builder(*inputs)
        self.values = [Signal(signed(bits)) for _, bits in inputs]

    @property
    def variables(self):
        return [k for k, value in enumerate(self.values) if not isinstance(value, int)]

    def bits(self, index):
        return len(self.values[index])

    def add(self, kind, *args, n=0):
        """The op's index, or the index of its last argument if it would be wider than WIDEST."""
        index = self.builder(kind, *args, n=n)
        if index < len(self.values):  # merged with an equal one
            return index
        op = self.builder.ops[index]
        value = Signal(signed(WIDTH)) if op.kind == "table" else apply(op, *(self.values[a] for a in op.args))
        if not isinstance(value, int) and len(value) > WIDEST:
            self.builder.ops.pop()
            return args[-1]
        self.values.append(value)
        return index

    def table(self, a, slot):
        """Tables take words of exactly WIDTH bits."""
        short = WIDTH - self.bits(a)
        a = self.add("shl", a, n=short) if short > 0 else a
        return self.add("table", self.add("sat", a, n=WIDTH), n=slot)


def widest_constant():
    """A constant whose highest bit is that of the widest operand: of a sign, were it taken for a signed word."""
    builder = Builder(("x", 2))
    return dataclasses.replace(builder.build(y=builder("mul", builder("const", n=2), 0)), deep=True), []


@st.composite
def pipelines(draw):
    """A pipeline of up to 14 drawn operations on one to three inputs, and all of its last results as outputs."""
    draft = Draft([(f"i{k}", draw(st.integers(2, 14))) for k in range(draw(st.integers(1, 3)))])
    tables = draw(st.integers(1, 2))
    amounts = {"shl": st.integers(1, 5), "rnd": st.integers(1, 8), "even": st.integers(1, 8), "sat": st.integers(2, 20)}
    for _ in range(draw(st.integers(1, 14))):
        places = st.sampled_from(draft.variables)
        kind, a = draw(st.sampled_from(("add", "sub", "mul", "unless", "table", *amounts))), draw(places)
        if kind == "table":
            draft.table(a, draw(st.integers(0, tables - 1)))
        elif kind in amounts:
            draft.add(kind, a, n=draw(amounts[kind]))
        elif kind == "unless":
            draft.add(kind, a, draw(places), n=draw(st.integers(-3, 3)))
        elif draw(st.booleans()):
            draft.add(kind, draft.add("const", n=draw(st.integers(-300, 300))), a)
        else:
            draft.add(kind, draw(places), a)
    last = draft.variables[-3:]
    pipeline = draft.builder.build(**{f"o{k}": index for k, index in enumerate(last)})
    pipeline = dataclasses.replace(pipeline, deep=draw(st.booleans()))
    limit = 1 << WIDTH - 1
    words = st.lists(st.integers(-limit, limit - 1), min_size=2 << SEGMENTS, max_size=2 << SEGMENTS)
    return pipeline, [np.array(draw(words)).reshape(-1, 2) for _ in range(tables)]


def simulate(pipeline, tables, rows):
    """Outputs of the circuit by name, one list entry per row, each taken ``latency`` cycles after its inputs."""
    dut = ElementPipeline(pipeline, width=WIDTH, segments=SEGMENTS)
    seen = {name: [] for name, _ in pipeline.outputs}

    async def bench(ctx):
        for slot, table in enumerate(pipeline.tables()):
            ctx.set(dut.table_w_en, 1 << slot)
            for (address, half), word in np.ndenumerate(tables[table]):
                ctx.set(dut.table_w_addr, address)
                ctx.set(dut.table_w_half, half)
                ctx.set(dut.table_w_data, int(word))
                await ctx.tick()
        ctx.set(dut.table_w_en, 0)
        for cycle in range(len(rows) + dut.latency):
            for name, value in rows[cycle].items() if cycle < len(rows) else ():
                ctx.set(getattr(dut, name), value)
            if cycle >= dut.latency:
                for name, values in seen.items():
                    values.append(ctx.get(getattr(dut, name)))
            await ctx.tick()

    m = Module()
    m.submodules.dut = dut
    m.d.sync += Signal().eq(1)  # a pipeline of shifts alone has no clock of its own
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen, dut.latency


def stimulus(pipeline, count, seed):
    """Words of all sizes for every input, the extremes first."""
    generator = np.random.default_rng(seed)
    columns = {}
    for name, bits in pipeline.inputs:
        limit = 1 << bits - 1
        words = generator.integers(-limit, limit, count) >> generator.integers(0, bits, count)
        words[:2] = -limit, limit - 1
        columns[name] = generator.permutation(words)
    return columns


@settings(max_examples=60, deadline=None)
@given(pipelines(), st.integers(0, 1 << 16))
@example(widest_constant(), 0)
def test_circuit_equals_evaluate(drawn, seed):
    pipeline, tables = drawn
    columns = stimulus(pipeline, 24, seed)
    rows = [{name: int(words[k]) for name, words in columns.items()} for k in range(24)]
    seen, cycles = simulate(pipeline, tables, rows)
    assert cycles == latency(pipeline)
    expected = evaluate(pipeline, columns, tables, WIDTH, SEGMENTS)
    assert seen == {name: np.broadcast_to(values, 24).tolist() for name, values in expected.items()}


@settings(max_examples=60, deadline=None)
@given(pipelines(), st.integers(0, 1 << 16))
def test_arrays_evaluate_like_ints(drawn, seed):
    pipeline, tables = drawn
    columns = stimulus(pipeline, 8, seed)
    whole = evaluate(pipeline, columns, tables, WIDTH, SEGMENTS)
    python = [table.tolist() for table in tables]
    for k in range(8):
        one = evaluate(pipeline, {name: int(words[k]) for name, words in columns.items()},
                       [Rows(table) for table in python], WIDTH, SEGMENTS)
        assert one == {name: np.broadcast_to(values, 8)[k] for name, values in whole.items()}


class Rows(list):
    """A table of Python ints that is indexed like the array."""

    def __getitem__(self, place):
        row, half = place
        return list.__getitem__(self, row)[half]


@given(pipelines())
def test_latency_is_the_longest_path(drawn):
    pipeline, _ = drawn

    def longest(index):
        op = pipeline.ops[index]
        return pipeline.stages[op.kind] + max(map(longest, op.args), default=0)

    ready = schedule(pipeline)
    assert ready == [longest(index) for index in range(len(pipeline.ops))]
    assert latency(pipeline) == max(ready[index] for _, index in pipeline.outputs)


def test_hand_worked_table():
    """Two segments of 8-bit words: -128..-1 rises from 10 by 64, 0..127 falls from 74 by 128."""
    builder = Builder(("x", 8))
    pipeline = builder.build(y=builder("table", 0, n=0))
    table = np.array([[10, 64], [74, -128]])
    x = np.array([-128, -127, -126, -64, -1, 0, 1, 64, 127])
    assert evaluate(pipeline, {"x": x}, [table], 8, 1)["y"].tolist() == [10, 11, 11, 42, 74, 74, 73, 10, -53]


def test_narrow_table_argument():
    """The model takes any word, and a cost may well tabulate a target of two bits."""
    builder = Builder(("x", 2))
    pipeline = builder.build(y=builder("table", 0, n=0))
    table = np.arange(2 << SEGMENTS).reshape(-1, 2)
    seen, _ = simulate(pipeline, [table], [{"x": x} for x in (-2, -1, 0, 1)])
    x = np.array([-2, -1, 0, 1])
    assert seen["y"] == evaluate(pipeline, {"x": x}, [table], WIDTH, SEGMENTS)["y"].tolist()
