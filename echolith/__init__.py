"""Write an energy in PyTorch; get a chip that runs it and learns it.

Names are imported when first used, so that opening a saved design needs neither torch nor amaranth.
"""

from importlib import import_module

__version__ = "0.1.0"

_NAMES = {
    "compile": "echolith.compiler.build",
    "Design": "echolith.compiler.design",
    "Leapfrog": "echolith.compiler.dynamics",
    **dict.fromkeys(("EchoBackpropagation", "HamiltonianEcho", "LagrangianEcho"), "echolith.compiler.learning"),
    "Stack": "echolith.compiler.stack",
    "Wanted": "echolith.compiler.search",
    "boundary_gradient": "echolith.compiler.boundaries",
    "boundary_reference": "echolith.compiler.boundaries",
    "Session": "echolith.host.session",
    "open": ("echolith.host.session", "open_file"),
    "load": "echolith.compiler.files",
    **dict.fromkeys(("CompileError", "DesignMismatch", "EcholithError", "FileError", "LinkError", "RangeError",
                     "ResourceError"), "echolith.compiler.errors"),
}

__all__ = sorted(_NAMES)


def __getattr__(name: str):
    if name not in _NAMES:
        raise AttributeError(f"module 'echolith' has no attribute {name!r}")
    place = _NAMES[name]
    module, attribute = (place, name) if isinstance(place, str) else place
    return getattr(import_module(module), attribute)
