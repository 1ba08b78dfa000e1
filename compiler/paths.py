"""Files and directories that a user names, before anything long is done for them."""

import errno
import os
from pathlib import Path

from echolith.compiler.errors import FileError

__all__ = ["folder", "named", "unfinished", "writable"]


def named(path: object) -> Path:
    """``path`` as a Path; raises FileError for what names nothing."""
    if not isinstance(path, str | os.PathLike) or not isinstance(text := os.fspath(path), str) or not text:
        raise FileError(f"a file or directory is named by a text, not empty, or a pathlib.Path, not {path!r:.60}")
    return Path(text)


def writable(path: object) -> Path:
    """A file that can be written, in a directory that is made if need be; raises FileError."""
    target = named(path)
    if target.is_dir():
        raise FileError(f"a file is needed; name one in the directory, not {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
        if target.is_file() or not target.exists():  # not /dev/stdout
            unfinished(target).touch()
            unfinished(target).unlink()
    except OSError as error:
        raise FileError(f"cannot write {target}: {error}") from error
    return target


def unfinished(target: Path) -> Path:
    """What a file is called until it is complete."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def folder(path: object) -> Path:
    """A directory that is made if need be; raises FileError."""
    target = named(path)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the directory {target}: {error}") from error
    return target
