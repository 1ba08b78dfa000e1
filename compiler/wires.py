"""What feeds what in a stack: sources by part, checked, and an order in which every part follows its sources."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from echolith.compiler.errors import CompileError

__all__ = ["INPUT", "Wires", "ordered", "sources"]

INPUT = "u"  # the source that is the stack's input row
Wires = Mapping[str, str | Sequence[str]]


def sources(parts: Sequence[str], wires: Wires) -> dict[str, tuple[str, ...]]:
    """Sources of every part; of those that ``wires`` leaves out, the part before it, of the first the input row.

    Raises CompileError for parts and sources that do not exist, and for parts but the last that nothing uses.
    """
    if not isinstance(wires, Mapping):
        raise CompileError(f'wires must map parts to their sources, e.g. {{"layer": "u"}}, not {type(wires).__name__}')
    for name in wires:
        if name not in parts:
            raise CompileError(f"wires: keys must be parts, {', '.join(parts)}, not {name!r}")
    found = {}
    for name, before in zip(parts, (INPUT, *parts), strict=False):
        given = wires.get(name, before)
        if not isinstance(given, Sequence):
            raise CompileError(f"wires: {name} must have the name of a source or a tuple of names, not "
                               f"{type(given).__name__}")
        found[name] = (given,) if isinstance(given, str) else tuple(given)
        if not found[name]:
            raise CompileError(f"wires: {name} must have a source, not ()")
        for source in found[name]:
            if source != INPUT and source not in parts:
                raise CompileError(f"wires: {name} must come from {', '.join(parts)} or {INPUT}, not {source!r}")
    used = {source for given in found.values() for source in given}
    for name in parts[:-1]:
        if name not in used:
            raise CompileError("wires: every part but the last must be the source of another; wire it or leave it out, "
                               f"not {name}")
    return found


def ordered(found: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """All parts, each behind its sources; CompileError if they form a cycle."""
    sorter = TopologicalSorter({name: [s for s in given if s != INPUT] for name, given in found.items()})
    try:
        return tuple(sorter.static_order())
    except CycleError as error:
        around = " -> ".join(error.args[1])
        raise CompileError("wires: layers must not feel the parts above them; wire one of these from elsewhere: "
                           f"{around} form a cycle") from error
