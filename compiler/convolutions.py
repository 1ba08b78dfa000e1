"""Convolutions of one sample: a node per convolution, with its shapes."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from echolith.compiler.elementwise import elementwise
from echolith.compiler.graph import Affine, Convolution, Term
from echolith.compiler.moves import reindex
from echolith.compiler.site import Argument, Site
from echolith.compiler.values import Array, Fixed

__all__ = ["convolution"]


def convolution(
    site: Site, x: Argument, weight: Argument, bias: Argument, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
) -> Array:  # fmt: skip
    """``aten.convolution`` of an array of shape (1, channels, *spatial)."""
    if not isinstance(x, Array) or not isinstance(weight, Fixed):
        raise site.refuse("a kernel depends on the states", "use a parameter as the kernel", site.operator)
    if x.shape[0] != 1:
        raise site.refuse("a batch of convolutions", "use x.view(1, channels, length)", f"shape {x.shape}")
    name, scale = _stored(site, weight)
    node = Convolution(
        name, x.shape[1:], site.shape[1:], tuple(stride), tuple(padding), tuple(dilation), groups, transposed
    )
    length = 1
    for size in site.shape:
        length *= size
    found = Array(site.shape, site.store.nodes.add(Affine(length, (Term(node, x.expr, scale),))))
    if bias is None:
        return found
    assert isinstance(bias, Fixed)
    column = reindex(site.store, bias, lambda t: t.reshape(-1, *[1] * (len(site.shape) - 2)))
    return elementwise(replace(site, operator="add"), found, column)


def _stored(site: Site, weight: Fixed) -> tuple[str, float]:
    """Name and scale of a kernel that is a parameter as it is stored; a frozen one is stored as it is used."""
    part = weight.parts[0] if len(weight.parts) == 1 else None
    if part is not None and site.store.values[part.name].shape == weight.shape:
        if torch.equal(part.probe, torch.arange(part.probe.numel()).reshape(weight.shape)):
            return part.name, part.scale
    if weight.learned:
        return site.store.whole(site.store.derived_from(weight)).name, 1.0
    return site.store.constant(weight.tensor.to(torch.float64).numpy()), 1.0
