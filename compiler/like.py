"""What a compile for given hardware, ``like=``, must agree with."""

from collections.abc import Mapping
from typing import Any

from echolith.compiler.case import Case
from echolith.compiler.design import Design
from echolith.compiler.errors import CompileError, DesignMismatch
from echolith.compiler.formats import Format
from echolith.compiler.packed import PACKED, PRODUCT
from echolith.compiler.quantise import choose_formats

__all__ = ["check_agreement", "check_form"]


def check_agreement(like: Design, lanes: Any, precision: Any, samples: Any) -> None:
    """Raises CompileError for lanes, memory and formats that are asked for, but are not those of ``like``."""
    if samples is not None:
        raise CompileError("samples: the memory is that of the hardware of like=; leave samples out, or compile "
                           f"without like=, not {samples}")
    if lanes not in (None, "auto", like.hardware.lanes):
        raise CompileError(f"lanes: the hardware of like= has {like.hardware.lanes}; leave lanes out, or compile "
                           f"without like=, not {lanes}")
    asked = {PRODUCT: str(PACKED)} if precision == "packed" else precision
    for name, text in asked.items() if isinstance(asked, Mapping) else ():
        given = like.precision.get(name)
        if given is None or not _same(name, text, given):
            known = f"has {given} for {name}" if given else f"has no {name}"
            raise CompileError(f"precision: the hardware of like= {known}; leave {name} out, or compile without like=, "
                               f"not {text!r}")


def _same(name: str, text: str, given: str) -> bool:
    """Whether two spellings mean one format; whole words count for data alone."""
    if given[0] != "Q":
        return text.split() == given.split()
    a, b = Format.parse(text), Format.parse(given)
    return a.frac == b.frac and (name not in ("input", "target") or a == b)


def check_form(case: Case, like: Design) -> None:
    """Raises DesignMismatch for a network that is built of other things than the hardware and its formats."""
    hw, states = like.hardware, case.graph.states
    found = [f"learn must be {case.learn}, not {hw.learn}"] if case.learn != hw.learn else []
    if states.keys() - like.states.keys():
        found.append(f"states must be {', '.join(like.states)}, not {', '.join(states)}")
    if len(case.vectors) > len(hw.vectors):
        found.append(f"vector parameters must be at most {len(hw.vectors)}, not {', '.join(case.vectors)}")
    if found:
        raise DesignMismatch(f"the network does not fit this hardware: {'; '.join(found)}")
    kept = {p.acc for p in case.everything if p.kept}  # in the format of the drives
    if unknown := sorted(choose_formats(case).fractions.keys() - like.fractions.keys() - kept):
        raise DesignMismatch("the network does not fit this hardware: its energy must have the form of that one's, "
                             f"whose formats know no {', '.join(unknown)}")
