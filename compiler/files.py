"""Designs and checkpoints on disk: safetensors with JSON metadata. No pickle; every field is checked on the way in."""

import dataclasses
import json
import os
import types
import typing
import zlib

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from echolith.compiler.design import Design
from echolith.compiler.errors import FileError
from echolith.compiler.paths import named, unfinished, writable

__all__ = ["load", "read_tensors", "save", "typed", "write_tensors"]

_KIND = "echolith-design-2"
_SUM = "crc32"


def save(design: Design, path: str | os.PathLike) -> None:
    """Write ``design`` to ``path``; an existing file is replaced only once the new one is complete."""
    fields = {f.name: getattr(design, f.name) for f in dataclasses.fields(Design) if f.name not in ("tables", "values")}
    tensors = {f"table{i}": t for i, t in enumerate(design.tables)}
    tensors.update({f"value.{name}": value for name, value in design.values.items()})
    text = {"design": json.dumps(_plain(fields)), "program_id": f"{design.program_id:08x}"}
    write_tensors(path, _KIND, tensors, text)


def load(path: str | os.PathLike) -> Design:
    """The design in ``path``.

    Raises
    ------
    FileError
        Absent, truncated, damaged, or not a design.
    """
    tensors, text = read_tensors(path, _KIND)
    try:
        fields = json.loads(text["design"])
        if not isinstance(fields, dict):
            raise TypeError(f"an object is needed, not {fields!r}")
        hints = typing.get_type_hints(Design)
        arguments: dict[str, typing.Any] = {name: typed(hints[name], value) for name, value in fields.items()}
        tables = tuple(tensors[f"table{i}"] for i in range(sum(n.startswith("table") for n in tensors)))
        values = {n.removeprefix("value."): v for n, v in tensors.items() if n.startswith("value.")}
        design = Design(**arguments, tables=tables, values=values)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} is not a design of this version: {error!r}") from error
    if f"{design.program_id:08x}" != text.get("program_id"):
        raise FileError(f"{path} is damaged: its program should be {text.get('program_id')}, not "
                        f"{design.program_id:08x}")
    return design


def write_tensors(path: str | os.PathLike, kind: str, tensors: dict[str, np.ndarray], text: dict[str, str]) -> None:
    """Write arrays and texts to a file of the given kind, atomically."""
    target = writable(path)
    part = unfinished(target)
    tensors, text = {n: np.asarray(t, order="C") for n, t in tensors.items()}, {**text, "kind": kind}
    try:
        save_file(tensors, part, {**text, _SUM: _checksum(tensors, text)})
        os.replace(part, target)
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot write {target}: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def read_tensors(path: str | os.PathLike, kind: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and texts of a file that `write_tensors` made with the same kind."""
    try:
        with safe_open(named(path), "numpy") as file:
            text = file.metadata() or {}
            found = text.get("kind")
            if found != kind:
                raise FileError(f"{path} must be a file of kind {kind}, not {found!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError as error:
        raise FileError(f"there is no file {path}") from error
    except (OSError, SafetensorError) as error:
        raise FileError(f"{path} is truncated, damaged or not an echolith file: {error}") from error
    told = text.pop(_SUM, "none")
    if told != (made := _checksum(tensors, text)):
        raise FileError(f"{path} is damaged: the checksum of what it holds is {made}, not {told}")
    return tensors, text


def _checksum(tensors: dict[str, np.ndarray], text: dict[str, str]) -> str:
    """CRC-32 of every word and text, with their names, formats and shapes."""
    found = zlib.crc32(json.dumps(text, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tensor.dtype} {tensor.shape}".encode(), found)
        found = zlib.crc32(np.ascontiguousarray(tensor).tobytes(), found)
    return f"{found:08x}"


def _plain(value: object) -> object:
    """Dataclasses and tuples as JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def typed(hint: object, value: object) -> object:
    """``value`` from JSON as the type of a dataclass field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else typed(next(a for a in arguments if a is not type(None)), value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise TypeError(f"{hint.__name__} must be an object, not {value!r}")
        hints = typing.get_type_hints(hint)
        return hint(**{name: typed(hints[name], v) for name, v in value.items()})
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError(f"a list is needed, not {value!r}")
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(typed(k, v) for k, v in zip(kinds, value, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise TypeError(f"an object is needed, not {value!r}")
        return {k: typed(arguments[1], v) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and hint is not dict and not isinstance(value, hint):
        raise TypeError(f"{hint.__name__} is needed, not {value!r}")
    return value
