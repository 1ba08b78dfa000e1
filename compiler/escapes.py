"""What a tracer does not see: values that leave the tensors as Python numbers or arrays, and derivatives cut off.

`Watch` is active while a method is traced. It gives every operator its source line, refuses what takes a number out of
a tensor that moves or learns, and marks the operators that run without autograd.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import FrameType

import torch
import torch.fx.traceback
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode

from echolith.compiler.decompose import REPLACED
from echolith.compiler.lines import calling, refusal, source

__all__ = ["NOWHERE", "Hidden", "Watch", "hidden"]

NOWHERE = " "  # the line of operators that are not the user's; with none, make_fx records one of its own

_KEY = "echolith_hidden"
_TENSOR = torch.Tensor
_TAKES = {
    **{getattr(_TENSOR, f"__{name}__"): f"{name}()" for name in ("int", "float", "complex", "index")},
    _TENSOR.__bool__: "if, while, and, or", _TENSOR.item: ".item()", _TENSOR.tolist: ".tolist()",
    _TENSOR.numpy: ".numpy()", _TENSOR.__array__: "a numpy function", torch.equal: "torch.equal()",
    _TENSOR.equal: ".equal()", torch.allclose: "torch.allclose()", _TENSOR.allclose: ".allclose()",
    torch.is_nonzero: "torch.is_nonzero()", _TENSOR.is_nonzero: ".is_nonzero()",
}  # fmt: skip
_COPIES = {torch.tensor: "torch.tensor()", torch.as_tensor: "torch.as_tensor()", torch.asarray: "torch.asarray()",
           _TENSOR.new_tensor: ".new_tensor()"}  # fmt: skip
_BRANCH = "write a branch with torch.where, and run loops a fixed number of times"
_ARRAY = "write it with torch functions"
_REMEDIES = {_TENSOR.__bool__: _BRANCH, _TENSOR.__int__: _BRANCH, _TENSOR.__index__: _BRANCH,
             _TENSOR.numpy: _ARRAY, _TENSOR.__array__: _ARRAY}  # fmt: skip


@dataclass(frozen=True)
class Hidden:
    """Why autograd does not see an operator, and the operator's line."""

    function: str  # the name of an autograd.Function; empty: gradients were switched off
    line: str


class Watch(TorchFunctionMode):
    """``moving`` are the tensors of which no number is known at compile time: arguments and learned parameters."""

    def __init__(self, method: str, moving: Mapping[str, torch.Tensor]):
        super().__init__()
        self.method = method
        self._roots = {node: name for name, tensor in moving.items() if (node := _node(tensor)) is not None}
        self._depends: dict[torch.fx.Node, bool] = {node: True for node in self._roots}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        frame = calling()
        line = source(frame.f_code.co_filename, frame.f_lineno)
        # make_fx on its own records only functions called "forward"
        torch.fx.traceback.set_stack_trace([line or NOWHERE])
        meta = torch.fx.traceback.current_meta
        meta.pop("custom", None)
        if not torch.is_grad_enabled():
            meta["custom"] = {_KEY: Hidden(_function(frame), line)}
        with self._allowed(func, args, line):
            return (REPLACED.get(func) or func)(*args, **(kwargs or {}))

    def _allowed(self, func, args: tuple, line: str):
        """Refuses what takes numbers out of moving tensors; those of known ones, and of texts, are taken without a
        trace."""
        if func is _TENSOR.__format__:
            return disable_proxy_modes_tracing()
        if func in _TAKES:
            if any(map(self._moving, _tensors(args))):
                remedy = _REMEDIES.get(func, "compute with tensors")
                raise self._refusal(f"a Python value is taken from a tensor ({_TAKES[func]})", remedy, line)
            return disable_proxy_modes_tracing()
        if func in _COPIES:
            listed = args[1:] if func is _TENSOR.new_tensor else args
            if any(isinstance(a, list | tuple) and any(map(self._moving, _tensors(a))) for a in listed):
                raise self._refusal(f"{_COPIES[func]} copies numbers out of tensors",
                                    "join tensors with torch.stack or torch.cat", line)  # fmt: skip
        if func is _TENSOR.detach_ and any(map(self._moving, _tensors(args))):
            raise refusal(self.method, line, "detach_() hides a dependence", "remove it", "detach_")
        return nullcontext()

    def _refusal(self, what: str, remedy: str, line: str):
        return refusal(self.method, line, what, remedy, "a value known only at run time")

    def _moving(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is computed from moving ones; of those that a transformation wraps nothing is known."""
        node = _node(tensor)
        return node is not None and self._reached(node)

    def _reached(self, node: torch.fx.Node) -> bool:
        stack = [node]
        while stack:
            top = stack[-1]
            waiting = [n for n in top.all_input_nodes if n not in self._depends]
            if waiting and top not in self._depends:
                stack += waiting
                continue
            self._depends.setdefault(top, any(self._depends[n] for n in top.all_input_nodes))
            stack.pop()
        return self._depends[node]


def hidden(node: torch.fx.Node) -> Hidden | None:
    """What hides ``node`` from autograd."""
    return node.meta.get("custom", {}).get(_KEY)


def _node(tensor: torch.Tensor) -> torch.fx.Node | None:
    mode = get_proxy_mode()
    found = None if mode is None else get_proxy_slot(tensor, mode.tracer, None)
    return None if found is None else found.proxy.node  # type: ignore[attr-defined]


def _tensors(values: object) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _function(frame: FrameType | None) -> str:
    """The autograd.Function in whose ``forward`` a frame is."""
    while frame is not None:
        if frame.f_code.co_name == "apply" and frame.f_code.co_filename.endswith(("autograd/function.py",)):
            return frame.f_locals["cls"].__name__
        frame = frame.f_back
    return ""
