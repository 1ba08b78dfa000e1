"""Rows kept between runs: one JSON file per figure, one row per thing measured, each with its date, CPU and tools."""

import datetime
import json
import os
import platform
from functools import cache
from pathlib import Path

import platformdirs

from echolith.bench.figure import Figure, Row
from echolith.compiler.errors import FileError
from echolith.compiler.paths import folder as made
from echolith.host.doctor import versions

__all__ = ["Store", "machine"]


@cache
def machine() -> dict:
    """What times depend on: CPU, cores, system, versions of all tools."""
    return {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform(), "versions": versions()}


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Store:
    """Rows by figure in ``folder``, which is made; by default bench/results of a checkout, else the user's data
    directory."""

    def __init__(self, folder: Path | None = None):
        own = Path(__file__).resolve().parent / "results"
        default = own if own.is_dir() else Path(platformdirs.user_data_dir("echolith")) / "bench"
        self.folder = made(folder or default)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def rows(self, name: str) -> list[Row]:
        """Those kept of a figure.

        Raises
        ------
        FileError
            If its file is damaged.
        """
        path = self._path(name)
        if not path.exists():
            return []
        try:
            rows = json.loads(path.read_text())
        except ValueError as error:
            raise FileError(f"{path} must be a list of rows as `echolith bench` writes it; delete it to measure again: "
                            f"{error}") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise FileError(f"{path} must be a list of rows as `echolith bench` writes it; delete it to measure again")
        return rows

    def keep(self, name: str, figure: Figure, row: Row) -> Row:
        """The row with its provenance, in place of an older one about the same."""
        found = machine()
        tools = {tool: found["versions"][tool] for tool in figure.tools if tool in found["versions"]}
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        row = {**row, "date": now, "cpu": f"{found['cpu']}, {found['cores']} cores", "tools": tools}
        about = [row[key] for key in figure.keys]
        others = [old for old in self.rows(name) if [old.get(key) for key in figure.keys] != about]
        lines = ",\n".join(json.dumps(each) for each in sorted([*others, row], key=lambda r: _order(r, figure)))
        part = self._path(name).with_suffix(".part")
        part.write_text(f"[\n{lines}\n]\n")
        part.replace(self._path(name))
        return row


def _order(row: Row, figure: Figure) -> list[tuple[bool, float, str]]:
    """Numbers by size, texts by letter."""
    values = [row.get(key) for key in figure.keys]
    return [(isinstance(v, str), 0 if isinstance(v, str) or v is None else v, str(v)) for v in values]
