"""Names that a state cannot have."""

import re

__all__ = ["ARGUMENTS", "FORMATS"]

ARGUMENTS = re.compile(r"u|y|p|target|[zc]\d+")  # of methods, and of what is computed
FORMATS = re.compile(r"(hidden|drive|vector)\d*|readout|state|input|nudge|target|output|delta|z")  # and blocks
