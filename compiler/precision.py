"""The formats of a compile: calibrated, as a mapping asks, or those of given hardware."""

import dataclasses
import re
from collections.abc import Mapping

from echolith.compiler.case import Case
from echolith.compiler.design import Design
from echolith.compiler.errors import CompileError
from echolith.compiler.formats import Format
from echolith.compiler.packed import PRODUCT, WORD, packed
from echolith.compiler.quantise import Formats, choose_formats

__all__ = ["chosen"]

_WIDEST = 62  # bits of an accumulator that int64 holds exactly
_DATA = ("input", "target")  # whose words have a width of their own
_PIECES = (4, 13)  # log2 of the least and the most of a table


def chosen(case: Case, precision: Mapping[str, str] | str, like: Design | None, uncalibrated: bool) -> Formats:
    """``precision`` is "auto", "packed" or a mapping by the names of `Design.precision`; on given hardware it decides
    nothing."""
    if like is not None:
        hw = like.hardware
        return Formats(dict(like.fractions), hw.input_bits, hw.target_bits, hw.accumulator, hw.segments,
                       {k: tuple(v) for k, v in like.lowered.items()}, hw.packed)
    two = packed(case, precision)
    formats = choose_formats(case, packed=two)
    fractions, sizes = _edits(case, formats, {} if isinstance(precision, str) else precision)
    if uncalibrated:
        fractions.setdefault("state", min(case.board.width - 6, formats["state"]))
    return dataclasses.replace(
        choose_formats(case, fractions, sizes.get("input_bits", 0), two) if fractions else formats, **sizes)


def _edits(case: Case, formats: Formats, precision: Mapping[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """Fraction bits, and sizes, by name."""
    fractions, sizes = {}, {}
    named = [n for n in (*formats.fractions, *case.flow.lengths) if n not in case.positions]
    for name, text in precision.items():
        if name == "accumulator":
            sizes["accumulator"] = _accumulator(text, case.accumulator)
        elif name == "table":
            sizes["segments"] = _segments(text)
        elif name in (WORD, PRODUCT):
            continue
        elif name in named:
            fractions[name] = _fraction(name, text, case.board.width)
            if name in _DATA:
                sizes[f"{name}_bits"] = _data(name, text, case.board.width)
        else:
            raise CompileError(f"precision names are {', '.join(dict.fromkeys(named))}, accumulator, table, word, "
                               f"product, not {name!r}")
    return fractions, sizes


def _fraction(name: str, text: str, width: int) -> int:
    """Fraction bits of a format that words of ``width`` bits can be used with."""
    operand = name in ("state", "u", "input", "target")
    least, most = (0, width) if operand else (-width, 3 * width)
    found = Format.parse(text).frac
    if not least <= found <= most:
        raise CompileError(f"precision: {name} must have from {least} to {most} fraction bits, not {text!r}")
    return found


def _data(name: str, text: str, width: int) -> int:
    """Bits of a data word."""
    found = Format.parse(text).width
    if not 2 <= found <= width:
        raise CompileError(f"precision: {name} must have from 2 to {width} bits with its sign, not {text!r}")
    return found


def _accumulator(text: str, least: int) -> int:
    """Narrower ones would overflow where the integer model does not."""
    match = re.fullmatch(r"\s*(\d+) bits\s*", text)
    if match is None or not least <= int(match[1]) <= _WIDEST:
        raise CompileError(f'precision: accumulator must be spelled like "{least} bits" and have {least} to {_WIDEST} '
                           f"of them, the least that hold every sum of products, not {text!r}")
    return int(match[1])


def _segments(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+) pieces\s*", text)
    if match is None or int(match[1]) not in [1 << n for n in range(_PIECES[0], _PIECES[1] + 1)]:
        raise CompileError(f'precision: table must be spelled like "2048 pieces" and have a power of two from '
                           f"{1 << _PIECES[0]} to {1 << _PIECES[1]} of them, not {text!r}")
    return int(match[1]).bit_length() - 1
