"""Why autograd on the user's method and its trace differ: what of it is the method's own doing."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch.utils._pytree import tree_leaves

from echolith.compiler.errors import CompileError
from echolith.compiler.escapes import Hidden, hidden
from echolith.compiler.lines import refusal
from echolith.compiler.trace import Trace, call, float64, parameters, trace

__all__ = ["explained", "stateful"]

_CLOSE = 1e-9


def explained(model: torch.nn.Module, method: str, arguments: Mapping[str, torch.Tensor]) -> CompileError | None:
    """The refusal of a method that is no function of its arguments, or whose derivative autograd does not see; None if
    it is neither. ``model`` comes from `trace.double`, and none of its methods has run."""
    refused = stateful(model, method, arguments)
    if refused is not None:
        return refused
    given, others = dict(arguments), _elsewhere(arguments)
    first = _value(copy.deepcopy(model), method, given)
    traced = trace(copy.deepcopy(model), method, others)
    with float64(), torch.no_grad():
        (replayed,) = tree_leaves(traced.module(parameters(model), *given.values()))
    if not torch.allclose(replayed, first, rtol=_CLOSE, atol=_CLOSE):
        return refusal(method, None, "numbers leave the tensors and come back as constants",
                       "compute with torch functions of the arguments alone",
                       f"{replayed.item():g} for {first.item():g}")  # fmt: skip
    if _same_slopes(traced, model, given):
        return None
    return _unseen(traced, model) or refusal(
        method, None, "autograd does not give the derivative of what the method computes",
        "remove hooks on gradients", "hooks")  # fmt: skip


def stateful(model: torch.nn.Module, method: str, arguments: Mapping[str, torch.Tensor]) -> CompileError | None:
    """The refusal of a method that remembers earlier calls, in buffers too; ``model`` as for `explained`."""
    fresh, used = copy.deepcopy(model), copy.deepcopy(model)
    _value(used, method, _elsewhere(arguments))
    first, again = _value(fresh, method, arguments), _value(used, method, arguments)
    if torch.equal(first.nan_to_num(), again.nan_to_num()):
        return None
    place = tuple((first != again).nonzero()[0].tolist())
    return refusal(method, None, "the method is not a function of its arguments",
                   "remove what changes from call to call: numbers of random or numpy.random, counters, tensors "
                   "kept on self", f"{first[place]:g} and {again[place]:g} at the same point")  # fmt: skip


def _same_slopes(traced: Trace, model: torch.nn.Module, given: Mapping[str, torch.Tensor]) -> bool:
    """Whether autograd finds the derivatives of the trace on the method itself."""
    copied = copy.deepcopy(model)
    try:
        found = _slopes(model, given, lambda values, *a: call(copied, traced.method, values, *a))
    except RuntimeError:  # autograd refuses the method: tensors of inference_mode
        return False
    expected = _slopes(model, given, lambda values, *a: tree_leaves(traced.module(values, *a))[0])
    return all(torch.allclose(a, b, rtol=_CLOSE, atol=_CLOSE) for a, b in zip(found, expected, strict=True))


def _slopes(model: torch.nn.Module, given: Mapping[str, torch.Tensor], function: Callable[..., torch.Tensor]
            ) -> list[torch.Tensor]:  # fmt: skip
    """By arguments and learned parameters."""
    learned = _learned(model)
    values = {n: v.detach().clone().requires_grad_(n in learned) for n, v in parameters(model).items()}
    leaves = [v.clone().requires_grad_(v.is_floating_point()) for v in given.values()]
    moving = [v for v in (*leaves, *values.values()) if v.requires_grad]
    with float64(), torch.enable_grad():
        value = function(values, *(v * 1 for v in leaves))
        return list(torch.autograd.grad(value, moving, allow_unused=True, materialize_grads=True))


def _unseen(traced: Trace, model: torch.nn.Module) -> CompileError | None:
    """The refusal of the first operator on states, inputs or learned parameters that autograd does not see."""
    frozen = {name for name in traced.parameters if name not in _learned(model)}
    live, stack = set(), [next(iter(reversed(traced.graph.nodes)))]
    while stack:
        node = stack.pop()
        if node not in live:
            live.add(node)
            stack += node.all_input_nodes
    names = iter((*traced.parameters, *traced.arguments))
    moving: set[torch.fx.Node] = set()
    for node in traced.graph.nodes:
        if node.op == "placeholder" and next(names) not in frozen or moving & set(node.all_input_nodes):
            moving.add(node)
        if node in live and node in moving and (found := hidden(node)) is not None:
            return _refused(traced.method, found)
    return None


def _refused(method: str, found: Hidden) -> CompileError:
    if found.function:
        return refusal(method, found.line, f"the backward of autograd.Function {found.function} is not the derivative "
                       "of its forward", f"write the {method} whose derivative you want in torch functions",
                       found.function)  # fmt: skip
    return refusal(method, found.line, "torch.no_grad() hides a dependence",
                   "remove it, or freeze with requires_grad_(False)", "no_grad")  # fmt: skip


def _learned(model: torch.nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters() if value.requires_grad}


def _value(model: torch.nn.Module, method: str, arguments: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Called as a user calls it: what the method assigns stays."""
    with float64(), torch.no_grad():
        return getattr(model, method)(*(v.clone() for v in arguments.values())).detach()


def _elsewhere(arguments: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: 0.5 * v + 0.1 if v.is_floating_point() else v for n, v in arguments.items()}
