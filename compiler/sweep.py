"""One instruction of the force, with its places."""

from dataclasses import dataclass

__all__ = ["Sweep"]


@dataclass(frozen=True)
class Sweep:
    """One instruction of the force: which sweep, over what, through which circuit, where to. See `isa`."""

    opcode: int
    length: int
    block: str = ""
    kind: int = 0
    source: int = 0
    input: bool = False  # x are the inputs
    first: int = 0
    second: int = 0
    repeat: int = 0  # times more than once
    gather: bool = False  # first, second: places in the index memory
    gather_second: bool = False
    place: int = 0
    tile: int = 0
    drive: int = 0
    value: bool = False
    rows: bool = False
    maximum: bool = False
    kept: bool = False  # the sums go to the drive memory
    force: bool = False
    drift: bool = False
    drift_kind: int = 0
    mass: bool = False  # the drift's gradients are kept
    learn: bool = False
    echo_only: bool = False
    contrast: bool = False  # the results are the difference of the echoes, kept with the pair
