"""Reading a traced method: every live operator in order, known ones computed, the others by their rule."""

import operator
from dataclasses import replace
from typing import Any

import torch
from torch.fx.node import map_arg

from echolith.compiler.rules import RULES
from echolith.compiler.site import FORM, Site
from echolith.compiler.spellings import LOSSES
from echolith.compiler.trace import Trace, float64
from echolith.compiler.values import Fixed, Part, Store, Value

__all__ = ["read"]

_LIKE = {"zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0}
_MOVES = frozenset(
    ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "t", "transpose", "permute", "expand", "clone", "alias",
     "contiguous", "lift_fresh_copy", "select", "slice", "flip", "roll", "index", "index_select", "diagonal")
)  # fmt: skip
_SOFTMAX = "softmax costs belong to a later release; use a squared error or binary cross-entropy per output"
_PAIRS = "write it as a matrix: W @ q with a frozen 0/1 matrix W"
_REMEDIES = {
    "_softmax": _SOFTMAX, "_log_softmax": _SOFTMAX, "logsumexp": _SOFTMAX, "nll_loss_forward": _SOFTMAX,
    "roll": _PAIRS, "select": _PAIRS, "slice": _PAIRS, "index": _PAIRS, "flip": _PAIRS, "index_select": _PAIRS,
    "gather": _PAIRS, "split": _PAIRS, "cumsum": _PAIRS, "diagonal": _PAIRS,
    "cat": "use one matrix per vector: W(q) + B(u)", "stack": "keep vectors apart and sum their energies",
    "convolution": "write it as a dense matrix", "_to_copy": "keep float64: the compiler chooses the number format",
}  # fmt: skip


def read(trace: Trace, store: Store, arguments: dict[str, Value]) -> tuple[Site, Value]:
    """The meaning of the output of ``trace``, and the place of its last operator.

    ``arguments`` gives the values of the method's arguments; parameters and buffers are taken from ``store``.
    Raises CompileError for operators outside the supported form.
    """
    environment: dict[torch.fx.Node, Value] = {}
    nodes = _live(trace, store)
    inputs = [_parameter(store, name) for name in trace.parameters] + [arguments[name] for name in trace.arguments]
    placeholders = iter(inputs)
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            environment[node] = next(placeholders)
        elif node.op == "get_attr" and node in nodes:
            environment[node] = Fixed(getattr(trace.module, str(node.target)).detach())
        elif node.op == "call_function" and node in nodes:
            environment[node] = _operator(_site(trace, store, node), node, environment)
    output = _output(trace)
    return _site(trace, store, output), environment[output]


def _output(trace: Trace) -> torch.fx.Node:
    result = next(iter(reversed(trace.graph.nodes))).args[0]
    if isinstance(result, list | tuple) and len(result) == 1:  # make_fx returns what the method returned, or a list
        result = result[0]
    if not isinstance(result, torch.fx.Node):
        site = Site(trace.method, Store({}, ()), "return", None, ())
        raise site.refuse("the result is not a tensor", "return one tensor computed from the states", repr(result))
    return result


def _parameter(store: Store, name: str) -> Fixed:
    array = store.values[name]
    probe = torch.arange(array.size).reshape(array.shape)
    return Fixed(torch.as_tensor(array), (Part(name, 1.0, probe),), name in store.learned)


def _overload(node: torch.fx.Node) -> torch._ops.OpOverload:
    assert isinstance(node.target, torch._ops.OpOverload), node.target
    return node.target


def _name(node: torch.fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    name = schema.name.split("::")[1] if schema else getattr(node.target, "__name__", str(node.target))
    return name if name.startswith("__") else name.removesuffix("_")


def _site(trace: Trace, store: Store, node: torch.fx.Node) -> Site:
    example = node.meta.get("val")
    example = example[0] if isinstance(example, list | tuple) and example else example
    shape = tuple(int(n) for n in example.shape) if isinstance(example, torch.Tensor) else ()
    return Site(trace.method, store, _name(node), node.stack_trace, shape)


def _live(trace: Trace, store: Store) -> set[torch.fx.Node]:
    """The operators that the result depends on. Random ones are refused, and writes whose effect would be lost."""
    live: set[torch.fx.Node] = set()
    stack = [_output(trace)]
    while stack:
        node = stack.pop()
        if node not in live:
            live.add(node)
            stack.extend(node.all_input_nodes)
    for node in trace.graph.nodes:
        site = _site(trace, store, node)
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        if node in live and torch.Tag.nondeterministic_seeded in node.target.tags:
            raise site.refuse("randomness (dropout, noise)", "call model.eval() or remove it", site.operator)
        if node not in live and node.target._schema.is_mutable:
            raise site.refuse("a tensor is written in place", "build a new tensor instead", site.operator)
    return live


def _operator(site: Site, node: torch.fx.Node, environment: dict[torch.fx.Node, Value]) -> Value:
    known = [environment[n] for n in node.all_input_nodes]
    fixed = all(isinstance(v, Fixed) for v in known)
    if node.target is operator.getitem and not fixed:
        return known[0]  # the operators read here return their result first, then scratch space
    if site.operator in ("detach", "detach_copy"):
        if any(not isinstance(v, Fixed) or v.learned for v in known):
            raise site.refuse(
                "detach (or .data) hides a dependence", "remove it, or freeze with requires_grad_(False)", "detach"
            )
        return known[0]
    fill = node.args[1] if site.operator == "full_like" else _LIKE.get(site.operator)
    if isinstance(fill, int | float):  # only the shape of its argument counts
        return Fixed(torch.full(site.shape, fill, dtype=torch.float64))
    if fixed:
        return _compute(site, node, environment)
    if site.operator not in RULES or (site.operator in _REMEDIES and not _trivial(site, node)):
        raise site.refuse(f"`{site.operator}` is not supported", _REMEDIES.get(site.operator, FORM), node.target)
    arguments, options = _arguments(site, node, environment)
    return RULES[site.operator](site, *arguments, **options)


def _trivial(site: Site, node: torch.fx.Node) -> bool:
    """Whether a selecting or converting operator changes nothing: same number of elements, still float64."""
    before, after = node.all_input_nodes[0].meta["val"], node.meta["val"]
    kept = before.numel() == after.numel() and after.dtype == torch.float64
    return kept and site.operator in ("select", "slice", "_to_copy")


def _arguments(
    site: Site, node: torch.fx.Node, environment: dict[torch.fx.Node, Value]
) -> tuple[tuple, dict]:
    def value(n: torch.fx.Node) -> Any:  # torch types what it maps as its own arguments, not as ours
        return environment[n]

    arguments, options = map_arg(node.args, value), map_arg(node.kwargs, value)
    if site.operator not in LOSSES:
        return tuple(arguments), dict(options)
    # Losses mix weights, which are not part of the form, and the reduction: read them by name.
    schema = _overload(node)._schema.arguments
    named = {a.name: v for a, v in zip(schema, arguments, strict=False)} | dict(options)
    for weight in ("weight", "pos_weight"):
        if named.pop(weight, None) is not None:
            raise site.refuse(f"`{site.operator}` with {weight}", "scale the cost by one number instead", weight)
    return (named.pop("self"), named.pop("target")), named


def _compute(site: Site, node: torch.fx.Node, environment: dict[torch.fx.Node, Value]) -> Fixed:
    """An operator on known tensors: run it. On learned ones only moves and linear combinations are allowed."""

    def tensors(part: int | None) -> tuple:
        def pick(n: torch.fx.Node) -> torch.Tensor:
            value = environment[n]
            assert isinstance(value, Fixed)
            return (value.tensor if part is None else value.parts[part].probe).clone()

        return map_arg((node.args, node.kwargs), pick)

    with float64(), torch.no_grad():
        args, kwargs = tensors(None)
        result = _overload(node)(*args, **kwargs)
        known = [v for n in node.all_input_nodes if isinstance(v := environment[n], Fixed)]
        if site.operator in _MOVES and len(known) == 1 and known[0].parts:
            parts = []
            for index, part in enumerate(known[0].parts):
                args, kwargs = tensors(index)
                parts.append(replace(part, probe=_overload(node)(*args, **kwargs)))
            return Fixed(result, tuple(parts), known[0].learned)
    if not any(v.learned for v in known):
        return Fixed(result)
    return _combine(site, node, environment, result)


def _combine(site: Site, node: torch.fx.Node, environment: dict[torch.fx.Node, Value], result: torch.Tensor) -> Fixed:
    """Learned tensors added, subtracted, or scaled by a number."""
    (args, options) = _arguments(site, node, environment)
    a, b = (*args, None)[:2]
    alpha = float(options.get("alpha", 1))
    if site.operator in ("add", "sub") and isinstance(a, Fixed | int | float) and isinstance(b, Fixed | int | float):
        sign = alpha if site.operator == "add" else -alpha
        left, right = _parts(site, a, result), _parts(site, b, result)
        return Fixed(result, (*left, *(replace(p, scale=p.scale * sign) for p in right)), True)
    factor = -1.0 if site.operator == "neg" else None
    if site.operator in ("mul", "div"):
        if site.operator == "mul" and not (isinstance(a, Fixed) and a.learned):
            a, b = b, a
        plain = b.number() if isinstance(b, Fixed) and b.tensor.numel() == 1 else b
        factor = plain if isinstance(plain, int | float) else None
        factor = 1 / factor if factor and site.operator == "div" else factor
    if factor is None or not isinstance(a, Fixed):
        learned = sorted({p.name for v in args if isinstance(v, Fixed) and v.learned for p in v.parts})
        raise site.refuse(
            f"`{site.operator}` makes a function of learned parameters",
            "make the result itself the nn.Parameter, or freeze its parts with requires_grad_(False)", learned,
        )  # fmt: skip
    return Fixed(result, tuple(replace(p, scale=p.scale * factor) for p in a.parts), True)


def _parts(site: Site, value: Fixed | float, result: torch.Tensor) -> tuple[Part, ...]:
    fixed = value if isinstance(value, Fixed) else Fixed(torch.tensor(float(value), dtype=torch.float64))
    if fixed.parts:
        return fixed.parts
    return (site.store.anonymous(fixed.tensor.expand(result.shape).contiguous()),)
