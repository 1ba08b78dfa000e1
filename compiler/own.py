"""What of a design is the model's own: the names of its state_dict, and the parameters that nothing uses."""

import dataclasses
import warnings

import numpy as np
import torch

from echolith.compiler.design import Design

__all__ = ["owned"]


def owned(design: Design, model: torch.nn.Module) -> Design:
    """``design`` with the names and values of all of ``model``; warns of learned parameters that nothing uses."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    first = {id(value): name for name, value in named.items()}  # a shared tensor has several names in the state_dict
    kept = {name: first[id(value)] for name, value in model.state_dict(keep_vars=True).items() if id(value) in first}
    given = {name: np.asarray(named[name].detach().to(torch.float64).cpu()) for name in dict.fromkeys(kept.values())}
    used = {*design.learned, *(o.parameter for made in design.derived for o in made.operands.values())}
    learned = {name for name, value in model.named_parameters() if value.requires_grad}
    unused = tuple(name for name in given if name in learned - used)
    if unused and design.hardware.learn:
        warnings.warn(f"{', '.join(unused)}: neither energy nor cost depends on these parameters; their gradients are "
                      "zero and they keep their values. Remove them, or freeze them with requires_grad_(False)",
                      stacklevel=3)
    return dataclasses.replace(design, parameters=kept, unused=unused, values={**given, **design.values})
