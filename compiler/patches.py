"""A convolution as one small matrix over many patches: where the patches are.

The matrix of a group has the kernel's own words: a row for each small channel, a column for each (large channel, place
in the kernel); see `convolve` for small and large. It is used once per position of the small grid.
"""

from dataclasses import dataclass

import numpy as np

from echolith.compiler.graph import Convolution

__all__ = ["Patches", "patches"]


@dataclass(frozen=True)
class Patches:
    """Moves between grids, (channels, *spatial) row by row, and vectors of one position after the other."""

    positions: int
    rows: tuple[int, int]  # of the kernel's first axis
    windows: tuple[int, ...]  # the large grid's patches: position, channel, place in the kernel; -1 in the padding
    pixels: tuple[int, ...]  # the small grid: position, channel
    placed: tuple[int, ...]  # that, back on the small grid; -1 in other groups


def patches(conv: Convolution, kernel: tuple[int, ...]) -> list[Patches]:
    """One per group; ``kernel`` is its shape in space."""
    source, target = conv.source_shape, conv.target_shape
    large, small = (target, source) if conv.transposed else (source, target)
    windows = _windows(conv, kernel, large, small)
    return [_patches(conv, group, windows, large, small) for group in range(conv.groups)]


def _patches(conv: Convolution, group: int, of: np.ndarray, large: tuple[int, ...], small: tuple[int, ...]) -> Patches:
    channels, outer = small[0] // conv.groups, large[0] // conv.groups
    positions = int(np.prod(small[1:]))
    block = np.arange(group * outer, (group + 1) * outer)[None, :, None] * int(np.prod(large[1:]))
    windows = np.where(of[:, None, :] >= 0, block + of[:, None, :], -1)
    first = group * channels
    pixels = np.arange(first, first + channels)[None, :] * positions + np.arange(positions)[:, None]
    placed = np.full((small[0], positions), -1)
    placed[first:first + channels] = np.arange(positions) * channels + np.arange(channels)[:, None]
    return Patches(positions, (first, first + channels), *(tuple(map(int, x.reshape(-1)))
                                                           for x in (windows, pixels, placed)))


def _windows(conv: Convolution, kernel: tuple[int, ...], large: tuple[int, ...], small: tuple[int, ...]) -> np.ndarray:
    """(positions, places in the kernel): elements of one large channel, -1 outside."""
    found: np.ndarray = np.zeros((1, 1), np.int64)
    for axis, size in enumerate(large[1:]):
        place = np.arange(small[1 + axis])[:, None] * conv.stride[axis] - conv.padding[axis]
        place = place + np.arange(kernel[axis]) * conv.dilation[axis]
        inside = (place >= 0) & (place < size)
        both = (found[:, None, :, None] >= 0) & inside[None, :, None, :]
        moved = found[:, None, :, None] * size + place[None, :, None, :]
        found = np.where(both, moved, -1).reshape(len(found) * len(place), -1)
    return found
