"""Fixed-point formats: how many fraction bits a signed word has, and how ranges choose them."""

import dataclasses
import math
import re
from dataclasses import dataclass

import numpy as np

from echolith.compiler.errors import CompileError

__all__ = ["Format", "Formats", "Packed", "field", "fraction", "narrow"]

_LOST = 2.0**-12  # root mean square of what rounding may take from data, over that of the data


@dataclass(frozen=True)
class Packed:
    """Two products a multiplier: bits of their two weights and of the operand that these share."""

    weight: int
    operand: int

    @property
    def shift(self) -> int:
        """From one product to the other. Weights are never the most negative word, so that one product has no more
        bits than this."""
        return self.weight + self.operand - 1

    def __str__(self) -> str:
        return f"{self.weight} x {self.operand} bits"


@dataclass(frozen=True)
class Formats:
    """Fraction bits by name: state, input, target, u (the inputs as operands), every block, every sum of a forward
    sweep, output, delta, and one per vector parameter; ``lowered`` are those chosen inside the pipelines.

    ``input_bits`` and ``target_bits`` are the whole widths of data words, ``accumulator`` is the bits of a sum of
    products, ``segments`` log2 of the pieces of a table, ``packed`` what sweeps see of weights and operands."""

    fractions: dict[str, int]
    input_bits: int
    target_bits: int
    accumulator: int
    segments: int
    lowered: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    packed: Packed | None = None

    def __getitem__(self, name: str) -> int:
        return self.fractions[name]


@dataclass(frozen=True)
class Format:
    """A signed word of ``width`` bits, ``frac`` of them behind the point. ``str`` gives Q notation without the sign.

    >>> str(Format(18, 12)), str(Format.parse("ap_fixed<18,6>"))
    ('Q5.12', 'Q5.12')
    """

    width: int
    frac: int

    @classmethod
    def parse(cls, text: str) -> "Format":
        """``Q5.12`` (integer bits without the sign) or ``ap_fixed<18,6>`` (integer bits with it)."""
        if m := re.fullmatch(r"\s*[Qq](-?\d+)\.(-?\d+)\s*", text):
            return cls(1 + int(m[1]) + int(m[2]), int(m[2]))
        if m := re.fullmatch(r"\s*ap_fixed<\s*(\d+)\s*,\s*(-?\d+)\s*>\s*", text):
            return cls(int(m[1]), int(m[1]) - int(m[2]))
        raise CompileError(f"a format must be spelled like Q5.12 or ap_fixed<18,6>, not {text!r}")

    def __str__(self) -> str:
        return f"Q{self.width - 1 - self.frac}.{self.frac}"

    @property
    def limit(self) -> float:
        """First magnitude that does not fit."""
        return 2.0 ** (self.width - 1 - self.frac)


def fraction(largest: float, width: int, margin: float = 2.0) -> int:
    """Fraction bits of a ``width``-bit word that holds ``margin`` times the ``largest`` magnitude."""
    if largest <= 0:
        return width - 1
    return width - 1 - math.ceil(math.log2(margin * largest) - 1e-9)


def field(bits: int, line: int) -> int:
    """Bits that a word of ``bits`` takes in a line of memory: fields never cross lines, and where one is takes no
    division."""
    return min(1 << (bits - 1).bit_length(), line)


def narrow(data: np.ndarray, width: int) -> Format:
    """The narrowest format that represents all of ``data`` exactly; else, of at most ``width`` bits for twice its
    range, the narrowest whose rounding is lost in it, as wide as its field."""
    largest = float(np.abs(data).max(initial=0.0))
    for frac in range(0, width):
        scaled = data * 2.0**frac
        if largest * 2.0**frac >= 2.0 ** (width - 1):
            break
        if np.array_equal(scaled, np.rint(scaled)):
            low, high = float(scaled.min(initial=0)), float(scaled.max(initial=0))
            bits = 1 + max(math.ceil(math.log2(high + 1)), math.ceil(math.log2(-low)) if low < 0 else 0)
            return Format(max(bits, 2), frac)
    lost = _LOST * float(np.sqrt(np.mean(np.square(data))))
    for bits in range(2, width):
        scale = 2.0 ** _within(largest, bits)
        if float(np.sqrt(np.mean(np.square(np.rint(data * scale) / scale - data)))) <= lost:
            bits = field(bits, width)
            return Format(bits, _within(largest, bits))
    return Format(width, _within(largest, width))


def _within(largest: float, bits: int) -> int:
    """Fraction bits of a data word that holds twice the ``largest`` magnitude."""
    return min(max(fraction(largest, bits), 0), bits - 2)
