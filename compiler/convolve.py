"""Convolutions in numpy: a large grid, a small one, and weights (small channels, large channels / groups, *kernel).

A convolution takes the large grid to the small one, its transpose, and `conv_transpose`, the small one to the large.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from echolith.compiler.graph import Convolution

__all__ = ["apply", "outer", "transpose"]


def apply(conv: Convolution, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(batch, elements of the target) from (batch, elements of the source)."""
    return _to_large(conv, weight, x) if conv.transposed else _to_small(conv, weight, x)


def transpose(conv: Convolution, weight: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(batch, elements of the source) from (batch, elements of the target)."""
    return _to_small(conv, weight, y) if conv.transposed else _to_large(conv, weight, y)


def outer(conv: Convolution, weight: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The derivative of ``sum(y * apply(x))`` by the weight, in its shape."""
    large, small = (_grouped(conv, v, i) for i, v in enumerate((y, x) if conv.transposed else (x, y)))
    found = np.zeros(_weights(conv, weight).shape)
    for kernel, inside, outside in _windows(conv, weight):
        left, right = (v.reshape(*v.shape[:3], -1) for v in (small[inside], large[outside]))
        found[(..., *kernel)] = np.einsum("bgox,bgix->goi", left, right)
    return found.reshape(weight.shape)


def _to_small(conv: Convolution, weight: np.ndarray, large: np.ndarray) -> np.ndarray:
    x, kernels = _grouped(conv, large, 0), _weights(conv, weight)
    y = _grouped(conv, np.zeros((len(large), int(np.prod(_shapes(conv)[1])))), 1)
    for kernel, inside, outside in _windows(conv, weight):
        y[inside] += np.einsum("goi,bgi...->bgo...", kernels[(..., *kernel)], x[outside])
    return y.reshape(len(large), -1)


def _to_large(conv: Convolution, weight: np.ndarray, small: np.ndarray) -> np.ndarray:
    y, kernels = _grouped(conv, small, 1), _weights(conv, weight)
    x = _grouped(conv, np.zeros((len(small), int(np.prod(_shapes(conv)[0])))), 0)
    for kernel, inside, outside in _windows(conv, weight):
        x[outside] += np.einsum("goi,bgo...->bgi...", kernels[(..., *kernel)], y[inside])
    return x.reshape(len(small), -1)


def _shapes(conv: Convolution) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the large and the small grid."""
    source, target = conv.source_shape, conv.target_shape
    return (target, source) if conv.transposed else (source, target)


def _grouped(conv: Convolution, flat: np.ndarray, which: int) -> np.ndarray:
    channels, *grid = _shapes(conv)[which]
    return flat.reshape(len(flat), conv.groups, channels // conv.groups, *grid)


def _weights(conv: Convolution, weight: np.ndarray) -> np.ndarray:
    return weight.reshape(conv.groups, weight.shape[0] // conv.groups, *weight.shape[1:])


def _windows(conv: Convolution, weight: np.ndarray) -> Iterator[tuple[tuple[int, ...], tuple, tuple]]:
    """For every place in the kernel: the places in the small grid and those in the large one that it connects."""
    (_, *large), (_, *small) = _shapes(conv)
    for kernel in itertools.product(*map(range, weight.shape[2:])):
        inside, outside = [], []
        for axis, k in enumerate(kernel):
            stride, shift = conv.stride[axis], k * conv.dilation[axis] - conv.padding[axis]
            start = max(0, -(shift // stride))
            stop = max(start, min(small[axis], (large[axis] - 1 - shift) // stride + 1))
            inside.append(slice(start, stop))
            outside.append(slice(start * stride + shift, stop * stride + shift, stride))
        yield kernel, (..., *inside), (..., *outside)
