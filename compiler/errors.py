"""Every error that echolith raises on purpose. Imports nothing, so that any layer may raise them."""

__all__ = ["CompileError", "DesignMismatch", "EcholithError", "FileError", "LinkError", "RangeError", "ResourceError"]


class EcholithError(Exception):
    """Base of all errors meant for the user."""


class CompileError(EcholithError):
    """The model cannot be lowered; the text names method, operation, source line and remedy."""


class ResourceError(EcholithError):
    """The design does not fit the board, or misses its clock."""


class LinkError(EcholithError):
    """The link to the chip is absent, busy, silent or too noisy."""


class DesignMismatch(EcholithError):
    """The chip, the file and the design do not belong together."""


class RangeError(EcholithError):
    """A number left its format: a wrapped state, a failed echo, a value that cannot be represented."""


class FileError(EcholithError):
    """A file is truncated, damaged, or not of the expected kind."""
