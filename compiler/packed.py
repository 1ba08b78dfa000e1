"""Narrow words: fewer bits in all of them, or in the factors of products, of which a multiplier then makes two."""

import dataclasses
import re
from collections.abc import Mapping

from echolith.boards.catalog import Board
from echolith.compiler.case import Case
from echolith.compiler.design import Design
from echolith.compiler.errors import CompileError
from echolith.compiler.formats import Packed

__all__ = ["PACKED", "PRODUCT", "WORD", "packed", "worded"]

PACKED = Packed(4, 11)  # of precision="packed"
WORD, PRODUCT = "word", "product"  # names of a mapping
_LEAST = 8  # bits of a word


def worded(board: Board, precision: object, like: Design | None) -> Board:
    """The board with multipliers as wide as the words that a mapping asks for, or given hardware has."""
    text = precision.get(WORD) if isinstance(precision, Mapping) else None
    if like is not None:
        return dataclasses.replace(board, width=like.hardware.width)
    if text is None:
        return board
    match = re.fullmatch(r"\s*(\d+) bits\s*", text)
    if match is None or not _LEAST <= int(match[1]) <= board.width:
        raise CompileError(f'precision: word must be spelled like "12 bits" and have {_LEAST} to {board.width} of '
                           f"them, not {text!r}")
    return dataclasses.replace(board, width=int(match[1]))


def packed(case: Case, precision: object) -> Packed | None:
    """The packed products that are asked for."""
    names = {PRODUCT: str(PACKED)} if precision == "packed" else precision if isinstance(precision, Mapping) else {}
    if PRODUCT not in names:
        return None
    if WORD in names:
        raise CompileError("precision: packed products are of words of the board's width; leave out word or product, "
                           f"not {names[WORD]!r}")
    if not case.board.overlap:
        raise CompileError("precision: packed products need a board with room for overlapping sweeps; compile for "
                           f"ulx3s-85f or leave product out, not {case.board.name}")
    found = _parsed(names[PRODUCT], case.board.width)
    if case.lanes % 2:
        raise CompileError(f"precision: two lanes share the multipliers of packed products; give an even number of "
                           f"lanes, not {case.lanes}")
    if case.units % 2:
        raise CompileError("precision: packed products take two columns at once; give the states an even number of "
                           f"units, not {case.units}")
    return found


def _parsed(text: str, width: int) -> Packed:
    match = re.fullmatch(r"\s*(\d+) x (\d+) bits\s*", text)
    if match is not None:
        found = Packed(int(match[1]), int(match[2]))
        if found.weight >= 2 and found.operand >= 2 and found.weight + found.shift <= width:
            return found
    raise CompileError(f'precision: product must be spelled like "{PACKED}", a weight and an operand of at least 2 '
                       f"bits, twice the weight and the operand at most {width + 1} bits, not {text!r}")
