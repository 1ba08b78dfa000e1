"""Results of the command line as tables for people."""

from collections.abc import Iterable, Sequence

from echolith.compiler.resources import KINDS
from echolith.host.doctor import Check

__all__ = ["estimated", "examined", "table"]


def table(rows: Iterable[Sequence[object]]) -> str:
    """Left-aligned columns, two blanks apart."""
    lines = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(max(map(len, lines), default=0))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=False)).rstrip() for line in lines)


def estimated(found: dict) -> str:
    """An estimate as a table."""
    rows: list[Sequence[object]] = [("board", f"{found['board']}, {found['clock_mhz']:g} MHz, {found['lanes']} lanes")]
    rows += [(f"cycles, {name.replace('_', ' a ')}", f"{value:,g}") for name, value in found["cycles"].items()]
    for name, speeds in found["samples_per_second"].items():
        rows += [(f"{name} samples/s", f"{speeds['chip']:,.0f} on chip, {speeds['held']:,.0f} fetching outputs, "
                                       f"{speeds['link']:,.0f} sending samples, at {found['baud']:,} baud")]
    cells = found["resources"]
    rows += [_cells(kind, KINDS[kind], cells) for kind in cells["used"]]
    rows += [("useful MACs", f"{found['mac_utilisation']:.3f}"),
             ("memory", f"{found['memory_bits'] / 1024:,.0f} kbit")]
    rows += [(f"  {e['name']}", f"{e['copies']} x {e['words']} x {e['bits']} bits, {e['used']} words used")
             for e in found["memory"]]
    return table(rows)


def _cells(kind: str, name: str, cells: dict) -> tuple[str, str]:
    error = f", within {100 * cells['error'][kind]:.0f} %" if kind in cells["error"] else ""
    return name, f"{cells['used'][kind]:,} of {cells['available'][kind]:,}{error}"


def examined(checks: Sequence[Check]) -> str:
    """Checks as a table, what is missing with its remedy."""
    rows = [("ok" if c.ok else "MISSING" if c.needed else "note", c.name, c.found, c.remedy) for c in checks]
    commands = list(dict.fromkeys(c.remedy for c in checks if not c.ok and c.remedy))
    advice = "\n\nto do:\n  " + "\n  ".join(commands) if commands else "\n\nnothing is missing"
    return table(rows) + advice
