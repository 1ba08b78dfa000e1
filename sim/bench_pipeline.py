"""cocotb bench of one generated pipeline at its ports: outputs and their latency on a stream of vectors.

Environment: PIPELINE, a JSON file with latency, table words [slot, address, half, word], inputs by name (lists of
words), and the expected outputs by name.
"""

import json
import os
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

__all__ = ["equals_evaluate"]


@cocotb.test()
async def equals_evaluate(dut):
    case = json.loads(Path(os.environ["PIPELINE"]).read_text())
    inputs, expected, latency = case["inputs"], case["outputs"], case["latency"]
    for name in (*inputs, "table_w_en", "table_w_addr", "table_w_half", "table_w_data"):
        getattr(dut, name).value = 0
    dut.rst.value = 0
    Clock(dut.clk, 10, unit="ns").start()
    for slot, address, half, word in case["tables"]:
        dut.table_w_en.value, dut.table_w_addr.value, dut.table_w_half.value = 1 << slot, address, half
        dut.table_w_data.value = word
        await RisingEdge(dut.clk)
    dut.table_w_en.value = 0
    count = len(next(iter(inputs.values())))
    for cycle in range(count + latency):  # a new vector in every cycle, each answered latency cycles later
        for name, words in inputs.items():
            getattr(dut, name).value = words[min(cycle, count - 1)]
        await FallingEdge(dut.clk)
        if cycle >= latency:
            got = {name: getattr(dut, name).value.to_signed() for name in expected}
            want = {name: words[cycle - latency] for name, words in expected.items()}
            vector = {name: words[cycle - latency] for name, words in inputs.items()}
            assert got == want, f"vector {cycle - latency} {vector}: expected {want}, not {got}"
        await RisingEdge(dut.clk)
