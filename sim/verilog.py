"""Verilog of a component, without megabytes of zeros."""

import re

from amaranth.back import verilog

__all__ = ["convert"]

# Amaranth initialises every memory word. The program and the host write whatever is read, and simulators start at
# zero anyway, so a large data memory need not be spelled out word by word.
_ZERO = re.compile(r"^ +\w+\[\d+\] = \d+'[hbd]0+;\n", re.MULTILINE)


def convert(component, name: str) -> str:
    """Verilog-2001 text with ``name`` as the top module."""
    return _ZERO.sub("", verilog.convert(component, name=name, emit_src=False))
