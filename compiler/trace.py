"""Running one method of the user's model under PyTorch's tracer: a graph of aten operators with source lines.

The model is copied and converted to float64 first; its parameters and buffers become named inputs of the graph.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.fx.traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from echolith.compiler.decompose import DECOMPOSED
from echolith.compiler.errors import CompileError
from echolith.compiler.escapes import NOWHERE, Watch
from echolith.compiler.lines import raising, refusal

__all__ = ["Trace", "call", "double", "float64", "parameters", "shapes", "trace"]


@dataclass(frozen=True)
class Trace:
    """One traced method. Its placeholders are ``parameters``, then ``arguments``; operators and one output follow."""

    method: str
    parameters: tuple[str, ...]  # parameters and buffers by qualified name
    arguments: tuple[str, ...]
    module: torch.fx.GraphModule

    @property
    def graph(self) -> torch.fx.Graph:
        return self.module.graph


def double(model: torch.nn.Module) -> torch.nn.Module:
    """A float64 copy of ``model``, including tensors kept as plain attributes. Refuses NaN, inf and complex values."""
    try:
        duplicate = copy.deepcopy(model)
    except RuntimeError as error:
        what = "a module that can be copied; compute weights with torch.nn.utils.parametrizations"
        raise CompileError(f"{type(model).__name__} must be {what}, not {str(error).partition('.')[0]}") from error
    except Exception as error:  # what holds locks, files and generators cannot be copied, in many ways
        place, found = _uncopied(model) or (type(model).__name__, str(error).partition("\n")[0])
        raise CompileError(f"{place} must be something that can be copied, as the model is for compiling; keep it "
                           f"outside the model, not {found}") from error
    for name, value in parameters(duplicate).items():
        if value.is_meta or torch.nn.parameter.is_lazy(value):
            raise CompileError(f"{name} must hold numbers; initialise the model before it is compiled, not a tensor "
                               "without them")
        if value.is_complex():
            raise CompileError(f"{name} must be real; split it into two real parameters, not {value.dtype}")
        if not bool(torch.isfinite(value).all()):
            bad = value[~torch.isfinite(value)].flatten()[0].item()
            raise CompileError(f"{name} must hold finite numbers; initialise or reload it, not {bad}")
    for module in duplicate.modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                setattr(module, name, value.double())
    return duplicate.double()


def _uncopied(model: torch.nn.Module) -> tuple[str, str] | None:
    """The attribute that has no copy, and its type."""
    for path, module in model.named_modules(prefix=type(model).__name__):
        for name, value in vars(module).items():
            try:
                copy.deepcopy(value if name != "_modules" else None)
            except Exception:  # as above
                return f"{path}.{name}", type(value).__name__
    return None


def parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, then buffers, by qualified name; a shared tensor appears once, under its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the states as ``model.states`` declares them."""
    states: dict = getattr(model, "states")  # noqa: B009 - torch types attributes of modules as tensors
    return {name: tuple(s) if isinstance(s, tuple | list) else (s,) for name, s in states.items()}


class _Method(torch.nn.Module):
    """One method of a model as ``forward``, which is what ``functional_call`` runs."""

    def __init__(self, model: torch.nn.Module, method: str):
        super().__init__()
        self.model = model
        self.method = method

    def forward(self, *arguments: torch.Tensor) -> torch.Tensor:
        return getattr(self.model, self.method)(*arguments)


def call(
    model: torch.nn.Module, method: str, values: dict[str, torch.Tensor], *arguments: torch.Tensor
) -> torch.Tensor:
    """``model.method(*arguments)`` with parameters and buffers taken from ``values``, differentiable in all of them."""
    replaced = {f"model.{name}": value for name, value in values.items()}
    return torch.func.functional_call(_Method(model, method), replaced, arguments)


def _lost(node: torch.fx.Node) -> bool:
    """Whether a node writes where others would not see it: without being read itself, or into a view."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return False
    seen = getattr(getattr(node.args[0], "target", None), "_schema", None) if node.args else None
    alias = seen.returns[0].alias_info if seen is not None and seen.returns else None
    return not node.users or alias is not None and not alias.is_write


def _traced(body: Callable, *arguments: object) -> torch.fx.GraphModule:
    """``body`` as a graph; if it writes into tensors that it made, as one that makes new ones."""
    with sdpa_kernel(SDPBackend.MATH):
        module = make_fx(body, decomposition_table=DECOMPOSED, record_stack_traces=True)(*arguments)
        if any(map(_lost, module.graph.nodes)):
            whole = torch.func.functionalize(body, remove="mutations")
            module = make_fx(whole, decomposition_table=DECOMPOSED, record_stack_traces=True)(*arguments)
    for node in module.graph.nodes:
        node.stack_trace = None if node.stack_trace == NOWHERE else node.stack_trace
    return module


@contextmanager
def float64() -> Iterator[None]:
    """Constants written inside a method, such as ``torch.tensor(0.1)``, are float64 as everything else."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def trace(model: torch.nn.Module, method: str, arguments: dict[str, torch.Tensor]) -> Trace:
    """Traces ``model.method(*arguments)``; ``model`` comes from :func:`double`.

    Raises CompileError for data-dependent control flow and for anything that PyTorch itself refuses.
    """
    _check_signature(model, method, tuple(arguments))
    values = {name: value.detach() for name, value in parameters(model).items()}
    learned = {name for name, value in model.named_parameters() if value.requires_grad}

    def body(values: dict[str, torch.Tensor], *args: torch.Tensor) -> torch.Tensor:
        moving = {name: value for name, value in values.items() if name in learned}
        with Watch(method, {**moving, **dict(zip(arguments, args, strict=True))}):
            result = call(model, method, values, *args)
        return _tensor(method, result)

    try:
        with float64(), torch.enable_grad(), torch.fx.traceback.preserve_node_meta():
            samples = {name: value.clone() for name, value in values.items()}
            module = _traced(body, samples, *(a.clone() for a in arguments.values()))
    except CompileError:
        raise
    except Exception as error:  # whatever the user's code raises: report it with its place and the shapes it was given
        raise _translate(method, raising(error.__traceback__), arguments, error) from error
    return Trace(method, tuple(values), tuple(arguments), module)


def _tensor(method: str, result: object) -> torch.Tensor:
    """``result`` of a method, if it is a tensor of real numbers."""
    remedy = "return one tensor computed from the states"
    if not isinstance(result, torch.Tensor):
        several = isinstance(result, list | tuple | dict)
        found = f"a {type(result).__name__} of {len(result)}" if several else repr(result)
        raise refusal(method, None, "the result is not a tensor", remedy, found)
    if result.is_complex() or not result.is_floating_point():
        raise refusal(method, None, "the result is not a tensor of real numbers", remedy, result.dtype)
    return result


def _check_signature(model: torch.nn.Module, method: str, arguments: tuple[str, ...]) -> None:
    try:
        signature = inspect.signature(getattr(model, method))
    except ValueError:  # of a function that is not written in Python: calling it will tell
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        expected = f"({', '.join(('self', *arguments))})"
        extra = len(signature.parameters) > len(arguments)
        if extra and (method == "energy" or method == "kinetic" and "u" not in signature.parameters):
            raise refusal(method, None, "an energy of positions and momenta together is not separable, and its steps "
                          "cannot be undone bit for bit", "write a potential energy(self, q, u) and, unless it is "
                          "|p|^2 / 2, a kinetic(self, p)", signature) from None
        raise refusal(method, None, "wrong arguments", f"declare it as {method}{expected}", signature) from None


_RAISED = {  # part of what PyTorch says: what it means, and the remedy
    "value out of a tracing tensor": (
        "a Python value is taken from a tensor (.item(), float(), or an if on data)",
        "compute with tensors, e.g. torch.where for a branch"),
    "does not require grad": (
        "torch.autograd in the method", "use torch.func.grad, or write the derivative out"),
    "Expected more than 1 value per channel when training": (
        "batch normalisation in training mode", "call model.eval()"),
    "dynamo-optimized": ("torch.compile in the method", "call the function without torch.compile"),
    "same dtype": ("numbers of two types", "keep float64, the type of all arguments: leave out dtype="),
}  # fmt: skip
_OF_SHAPES = RuntimeError, ValueError, IndexError  # themselves: what is derived from them is about other things


def _translate(
    method: str, line: str | None, arguments: dict[str, torch.Tensor], error: Exception
) -> CompileError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    for part, (what, remedy) in _RAISED.items():
        if part in str(error):
            return refusal(method, line, what, remedy, text.partition(" with aten")[0])
    what = f"the method raised {type(error).__name__}"
    if type(error) not in _OF_SHAPES:
        return refusal(method, line, what, "correct it", text)
    shapes = ", ".join(f"{name} of shape {tuple(value.shape)}" for name, value in arguments.items())
    return refusal(method, line, what, f"it must accept {shapes} as declared by states, inputs and outputs", text)
