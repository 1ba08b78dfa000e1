"""Where a sample's data words are in the lines of the sample memory, and lines from words. numpy alone.

Inputs and targets have fields of their own widths, powers of two, so that none crosses a line. Places inside a record
are counted in the narrower of the two. Rows follow each other without a gap; a target comes behind its row.
"""

from dataclasses import dataclass

import numpy as np

from echolith.compiler.formats import field

__all__ = ["Record"]


@dataclass(frozen=True)
class Record:
    """The layout of a sample with ``steps`` rows of ``inputs`` words and ``reads`` (1, or as many as rows, or none)
    targets of ``outputs`` words. ``line`` is the bits of a line, ``bits`` those of both kinds of words."""

    line: int
    bits: tuple[int, int]
    steps: int
    inputs: int
    outputs: int
    reads: int

    @property
    def fields(self) -> tuple[int, int]:
        """Bits of a field of inputs, of targets."""
        a, b = (field(bits, self.line) for bits in self.bits)
        return a, b

    @property
    def unit(self) -> int:
        """Bits that places are counted in."""
        return min(self.fields)

    @property
    def target(self) -> int:
        """From the place of a row, which is the last if only that has a target, to its target."""
        behind = 1 if self.reads == self.steps else self.steps
        return _up(behind * self._sizes[0], self._grains[1]) - (behind - 1) * self._sizes[0]

    @property
    def row(self) -> int:
        """From the place of one row to that of the next."""
        if self.reads != self.steps or self.steps == 1:
            return self._sizes[0]
        return _up(self.target + self._sizes[1], max(self._grains))

    @property
    def lines(self) -> int:
        """Of one record; 1 at least."""
        end = (self.steps - 1) * self.row + (self.target + self._sizes[1] if self.reads else self._sizes[0])
        return max(-(-end * self.unit // self.line), 1)

    def pack(self, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(samples, lines) unsigned from (samples, steps, inputs) and (samples, read-outs, outputs) words; ``target``
        is not looked at if there are none."""
        found = np.zeros((self.lines, len(x)), np.uint64)
        parts = [(x, 0), (target, 1)] if self.reads else [(x, 0)]
        for words, kind in parts:
            line, shift = self._places(kind)
            mask = np.uint64((1 << self.bits[kind]) - 1)
            values = (words.reshape(len(x), -1).astype(np.int64).astype(np.uint64) & mask) << shift
            np.bitwise_or.at(found, line, values.T)
        return np.ascontiguousarray(found.T)

    def unpack(self, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The words of (samples, lines)."""
        samples = len(lines)
        x = self._words(lines, 0).reshape(samples, self.steps, self.inputs)
        if not self.reads:
            return x, np.zeros((samples, 0, 0), np.int64)
        return x, self._words(lines, 1).reshape(samples, self.reads, self.outputs)

    def rows(self, words: np.ndarray, kind: int) -> np.ndarray:
        """(samples, rows, lines) of rows that each begin a line, as they are streamed."""
        samples, rows, length = words.shape
        one = Record(self.line, (self.bits[kind], self.bits[kind]), 1, length, 0, 0)
        return one.pack(words.reshape(-1, 1, length), words).reshape(samples, rows, -1)

    def number(self, place: int, target: bool) -> int:
        """Row of inputs, or of targets, that begins at ``place``."""
        if not target:
            return place // self.row if self.row else 0
        return (place - self.target) // self.row if self.reads == self.steps and self.row else 0

    def _words(self, lines: np.ndarray, kind: int) -> np.ndarray:
        line, shift = self._places(kind)
        bits = self.bits[kind]
        found = (lines[:, line].astype(np.uint64) >> shift).astype(np.int64) & (1 << bits) - 1
        return (found ^ 1 << bits - 1) - (1 << bits - 1)

    def _places(self, kind: int) -> tuple[np.ndarray, np.ndarray]:
        """Line and shift of every word, in order."""
        rows, length = ((self.steps, self.inputs), (self.reads, self.outputs))[kind]
        first = (self.steps - self.reads) * self.row + self.target if kind else 0
        place = first + np.arange(rows)[:, None] * self.row + np.arange(length) * self._grains[kind]
        bit = place.reshape(-1) * self.unit
        return bit // self.line, (bit % self.line).astype(np.uint64)

    @property
    def _grains(self) -> tuple[int, int]:
        """Places that a field takes."""
        a, b = self.fields
        return a // self.unit, b // self.unit

    @property
    def _sizes(self) -> tuple[int, int]:
        """Places that a row takes, that a target takes."""
        return self.inputs * self._grains[0], self.outputs * self._grains[1]


def _up(places: int, grain: int) -> int:
    """The next place where a field of ``grain`` places may begin."""
    return -(-places // grain) * grain
