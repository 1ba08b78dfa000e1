"""PyTorch operators as others that the rules read: entries for the tracer, which keeps the user's line on all of them.

Each has the arguments of ``aten`` and returns all of its results; those that nobody reads are left out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["DECOMPOSED", "REPLACED"]

_ATEN = torch.ops.aten


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _standard(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` without its mean, of variance 1 along ``axes``; the mean, and what it was multiplied by."""
    mean = x.mean(axes, keepdim=True)
    scale = ((x - mean).square().mean(axes, keepdim=True) + eps).rsqrt()
    return (x - mean) * scale, mean, scale


def _layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float):
    y, mean, scale = _standard(x, tuple(range(-len(shape), 0)), eps)
    return _scaled(y, weight, bias), mean, scale


def _group_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, hxw: int, group: int,
                eps: float):  # fmt: skip
    y, mean, scale = _standard(x.reshape(n, group, c // group * hxw), (2,), eps)
    weight, bias = (v if v is None else v.view(c, *[1] * (x.ndim - 2)) for v in (weight, bias))
    return _scaled(y.reshape(x.shape), weight, bias), mean[..., 0], scale[..., 0]


def _batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None, var: Tensor | None,
                training: bool, momentum: float, eps: float, cudnn: bool = False):  # fmt: skip
    column = (-1, *[1] * (x.ndim - 2))
    weight, bias = (v if v is None else v.view(column) for v in (weight, bias))
    if training and mean is not None:
        return NotImplemented  # statistics of a batch, which a chip has not
    if training or mean is None or var is None:
        y, mean, scale = _standard(x, (0, *range(2, x.ndim)), eps)
    else:
        scale = (var + eps).rsqrt().view(column)
        y = (x - mean.view(column)) * scale
    return _scaled(y, weight, bias), mean.flatten(), scale.flatten()


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    norm = v.square().sum([d for d in range(v.ndim) if d != dim], keepdim=True).sqrt()
    return v * (g / norm), norm


def _trilinear(a: Tensor, b: Tensor, c: Tensor, expand1: Sequence[int], expand2: Sequence[int],
               expand3: Sequence[int], sumdim: Sequence[int], unroll_dim: int = 1) -> Tensor:  # fmt: skip
    """Of nn.Bilinear: x1' W x2 for every row and output."""
    if (list(expand1), list(expand2), list(expand3), list(sumdim)) != ([1, 3], [0], [1, 2], [2, 3]):
        return NotImplemented
    return torch.stack([((a @ w) * c).sum(-1) for w in b.unbind()], -1)


def _cdist(a: Tensor, b: Tensor, p: float, mode: int | None) -> Tensor:
    return torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)


def _pdist(x: Tensor, p: float = 2) -> Tensor:
    i, j = torch.triu_indices(len(x), len(x), 1)
    return torch.linalg.vector_norm(x[i] - x[j], p, -1)


def _prod(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    parts = x.flatten().unbind() if dim is None else x.unbind(dim)
    total = parts[0]
    for part in parts[1:]:
        total = total * part
    return total.unsqueeze(dim) if keepdim and dim is not None else total


def _cumprod(x: Tensor, dim: int) -> Tensor:
    found = [x.select(dim, 0)]
    for i in range(1, x.shape[dim]):
        found.append(found[-1] * x.select(dim, i))
    return torch.stack(found, dim)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * b.sigmoid()


def _cross(a: Tensor, b: Tensor, *, dim: int = -1) -> Tensor:
    return a.roll(-1, dim) * b.roll(1, dim) - a.roll(1, dim) * b.roll(-1, dim)


def _block_diag(parts: Sequence[Tensor]) -> Tensor:
    parts, width, start, rows = [p.reshape(-1, p.shape[-1]) for p in parts], sum(p.shape[-1] for p in parts), 0, []
    for part in parts:
        rows.append(functional.pad(part, (start, width - start - part.shape[1])))
        start += part.shape[1]
    return torch.cat(rows)


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """`torch.nn.functional.pad`: PyTorch writes a circular one in place."""
    if mode != "circular":
        return functional.pad(x, pad, mode, value)
    for axis, (left, right) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim, size = x.ndim - 1 - axis, x.shape[-1 - axis]
        x = x.index_select(dim, torch.arange(-left, size + right) % size)
    return x


DECOMPOSED: dict[torch._ops.OpOverload, Callable] = {
    _ATEN.native_layer_norm.default: _layer_norm, _ATEN.native_group_norm.default: _group_norm,
    _ATEN.native_batch_norm.default: _batch_norm,
    _ATEN._weight_norm_interface.default: _weight_norm, _ATEN._trilinear.default: _trilinear,
    _ATEN._cdist_forward.default: _cdist, _ATEN._pdist_forward.default: _pdist,
    _ATEN.prod.default: _prod, _ATEN.prod.dim_int: _prod, _ATEN.cumprod.default: _cumprod,
    _ATEN.glu.default: _glu, _ATEN.linalg_cross.default: _cross,
    _ATEN.embedding.default: lambda weight, index, *_: weight.index_select(0, index.flatten()).reshape(
        *index.shape, weight.shape[1]),
    _ATEN.addr.default: lambda x, a, b, beta=1, alpha=1: beta * x + alpha * (a[:, None] * b),
    _ATEN.addbmm.default: lambda x, a, b, beta=1, alpha=1: beta * x + alpha * torch.bmm(a, b).sum(0),
    _ATEN.block_diag.default: _block_diag,
    _ATEN.trace.default: lambda x: x.diagonal().sum(),
    _ATEN.dist.default: lambda a, b, p=2: torch.linalg.vector_norm(a - b, p),
    _ATEN.nan_to_num.default: lambda x, *_: x * 1,
}  # fmt: skip


def _one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """Without PyTorch's look at the numbers, which a trace does not have."""
    if num_classes < 1 or x.dtype != torch.int64:
        return functional.one_hot(x, num_classes)
    return (x.unsqueeze(-1) == torch.arange(num_classes)).long()


def _item(x: Tensor, index: Any) -> Tensor:
    """An element by the number in a tensor, which Python's indexing would take out of it."""
    if isinstance(index, Tensor) and index.ndim == 0 and index.dtype == torch.int64:
        return x[index.reshape(1)][0]
    return x[index]


# Python functions of torch, replaced before they run
REPLACED: dict[Callable, Callable] = {
    functional.pad: _pad, functional.one_hot: _one_hot, Tensor.__getitem__: _item,
}  # fmt: skip
