"""Stopping a run: the core is idle once its sweep has drained; the next run is as if nothing had happened."""

import dataclasses

from amaranth.sim import Simulator

from echolith.compiler.cycles import cycles
from echolith.compiler.registers import READ_CYCLES, Bank, address
from echolith.rtl.core import Core
from echolith.sim.bench_network import design

GO, STOP = 1, 2


class Bus:
    """A core's ports in the Amaranth simulator."""

    def __init__(self, core, ctx):
        self.core, self.ctx = core, ctx

    async def write(self, name, word):
        self.ctx.set(self.core.bus_addr, address(name))
        self.ctx.set(self.core.bus_w_data, word)
        self.ctx.set(self.core.bus_w_stb, 1)
        await self.ctx.tick()
        self.ctx.set(self.core.bus_w_stb, 0)

    async def read(self, name):
        self.ctx.set(self.core.bus_addr, address(name))
        self.ctx.set(self.core.bus_r_stb, 1)
        for _ in range(READ_CYCLES):
            await self.ctx.tick()
            self.ctx.set(self.core.bus_r_stb, 0)
        return self.ctx.get(self.core.bus_r_data)

    async def fill(self, bank, words):
        await self.write("bank", bank)
        await self.write("pointer", 0)
        await self.ctx.tick()
        self.ctx.set(self.core.push.valid, 1)
        for word in words:
            self.ctx.set(self.core.push.payload, word)
            await self.ctx.tick()
        self.ctx.set(self.core.push.valid, 0)


def test_stop_anywhere_leaves_nothing_behind():
    small = design()
    core, seen = Core(small), []

    async def bench(ctx):
        bus = Bus(core, ctx)
        await bus.fill(Bank.PROGRAM, small.program)
        await bus.fill(Bank.ORDER, [0, 0])
        await bus.write("entry", small.entries["predict"])
        await bus.write("count", 1)
        for wait in (3, 4, 5, 6, 9, 30, 31, 57, 58):  # cycles from go to stop: fetch, decode, next, sweep, tail
            await bus.write("control", GO)
            await ctx.tick().repeat(wait)
            await bus.write("control", STOP)
            await ctx.tick().repeat(max(dataclasses.astuple(core.tails)) + 6)
            stopped = not ctx.get(core.busy)
            await bus.write("control", GO)
            await ctx.tick().repeat(1000)
            seen.append((wait, stopped, await bus.read("cycles")))

    simulator = Simulator(core)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    expected = cycles(small.program, small.entries["predict"], small.hardware)
    assert seen == [(wait, True, expected) for wait, *_ in seen]
