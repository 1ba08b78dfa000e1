"""Reading a traced method: every live operator in order, known ones computed, the others by their rule."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.fx.node import map_arg

from echolith.compiler.contractions import contraction, linear
from echolith.compiler.functions import combination, filled, function, joined, settled
from echolith.compiler.linear import LINEAR, linear_operator
from echolith.compiler.losses import CLASS_RULES
from echolith.compiler.moves import FILLING, MOVES, move
from echolith.compiler.rules import RULES
from echolith.compiler.site import FORM, Site
from echolith.compiler.spellings import LOSSES
from echolith.compiler.trace import Trace, float64
from echolith.compiler.values import Classes, Fixed, Part, Store, Value

__all__ = ["read"]

_SHAPES = frozenset(("squeeze", "unsqueeze", "t", "transpose"))  # in place, they write nothing

_LIKE = {"zeros_like": 0.0, "ones_like": 1.0, "new_zeros": 0.0, "new_ones": 1.0}
_FLOAT = "keep float64: the compiler chooses the number format"
_NORMS = {"native_batch_norm": 5, "_native_batch_norm_legit": 5, "cudnn_batch_norm": 5}  # place of ``training``
_REMEDIES = {
    "_to_copy": _FLOAT, "max": "use logsumexp, a smooth maximum", "min": "use -logsumexp(-q)",
    "amax": "use logsumexp, a smooth maximum", "amin": "use -logsumexp(-q)",
    "sort": "use a fixed order of the units",
    **dict.fromkeys(("linalg_matrix_exp", "linalg_inv_ex", "_linalg_solve_ex", "linalg_qr", "geqrf"),
                    "freeze its parameters with requires_grad_(False), or let its result be a parameter"),
    **dict.fromkeys(("floor", "ceil", "round", "trunc", "remainder", "fmod"), "it has no slope: use a smooth function"),
    "max_pool2d_with_indices": "use avg_pool or logsumexp, a smooth maximum", "hardsigmoid": "use relu6(q + 3) / 6",
    "_native_multi_head_attention": "call model.train() or torch.backends.mha.set_fastpath_enabled(False)",
    "nll_loss_forward": "let the target be a class number",
    **dict.fromkeys(("argmax", "argmin", "topk", "argsort"), "use softmax or logsumexp"),
    "frac": "leave it out: its derivative is 0 or none",
    **dict.fromkeys(("native_layer_norm", "native_group_norm"), "write it with mean and a square"),
    "native_batch_norm": "write it as a factor and a shift",
    "index_put": "use the elements where they are needed, e.g. (t * q[i] * q[j]).sum()",
}  # fmt: skip


def read(
    trace: Trace, store: Store, arguments: Mapping[str, Value], integers: Mapping[str, torch.Tensor]
) -> tuple[Site, Value]:
    """The meaning of the output of ``trace``, and the place of its last operator.

    ``arguments`` gives the values of the method's arguments; parameters and buffers are taken from ``store``, those of
    whole numbers and truth values from ``integers``. Raises CompileError for operators outside the supported form.
    """
    environment: dict[torch.fx.Node, Any] = {}
    nodes = _live(trace, store)
    inputs = [
        Fixed(integers[name]) if name in integers else _parameter(store, name) for name in trace.parameters
    ] + [arguments[name] for name in trace.arguments]
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
    (result,) = next(iter(reversed(trace.graph.nodes))).all_input_nodes
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
    sites = [(n, _site(trace, store, n)) for n in trace.graph.nodes if isinstance(n.target, torch._ops.OpOverload)]
    for node, site in sites:
        if "out" in node.kwargs:
            raise site.refuse("an operator writes into a buffer", "call model.eval() (spectral_norm)", site.operator)
        if node in live:
            _evaluating(node, site)
    for node, site in sites:
        lost = node not in live and site.operator not in _SHAPES  # nn.Linear without bias squeezes its own result
        if _overload(node)._schema.is_mutable and (lost or _given(node)):
            raise site.refuse("a tensor is written in place", "build a new tensor instead", site.operator)
    return live


def _evaluating(node: torch.fx.Node, site: Site) -> None:
    """Refuses what a model does in training mode alone."""
    if site.operator in _NORMS and node.args[_NORMS[site.operator]]:
        raise site.refuse("batch normalisation in training mode", "call model.eval()", site.operator)
    attention = site.operator.startswith("_scaled_dot_product")  # random only with dropout
    if torch.Tag.nondeterministic_seeded in _overload(node).tags and not attention:
        raise site.refuse("randomness (dropout, noise)", "call model.eval() or remove it", site.operator)


def _given(node: torch.fx.Node) -> bool:
    """Whether the first argument of ``node`` is a view of an argument of the method, or of a parameter."""
    first = node.args[0]
    while isinstance(first, torch.fx.Node) and first.op == "call_function" and _name(first) in MOVES - {"clone"}:
        first = first.args[0]
    return isinstance(first, torch.fx.Node) and first.op == "placeholder"


def _operator(site: Site, node: torch.fx.Node, environment: Mapping[torch.fx.Node, Any]) -> Any:
    known = [environment[n] for n in node.all_input_nodes]
    fixed = all(isinstance(v, Fixed) for v in known)
    if node.target is operator.getitem and not fixed:
        # Of several results, the operators read here return theirs first, then scratch space.
        item: Any = node.args[1]
        return known[0][item] if isinstance(known[0], list) else known[0]
    if site.operator in ("detach", "detach_copy"):
        if any(not isinstance(v, Fixed) or v.learned for v in known):
            raise site.refuse(
                "detach (or .data) hides a dependence", "remove it, or freeze with requires_grad_(False)", "detach"
            )
        return known[0]
    fill = node.args[1] if site.operator == "full_like" else _LIKE.get(site.operator)
    if isinstance(fill, int | float):  # only the shape of its argument counts
        return Fixed(torch.full(site.shape, fill, dtype=torch.float64))
    if fixed and (computed := _compute(site, node, environment)) is not None:
        return computed
    if any(isinstance(v, Fixed) and v.tensor.is_complex() for v in known):
        raise site.refuse("complex numbers are not supported", "write real and imaginary parts apart", site.operator)
    settle = {n: settled(site.store, environment[n]) for n in node.all_input_nodes}
    known = list(settle.values())
    arguments, options = _arguments(node, settle)
    if any(isinstance(v, Classes) for v in known) or any(isinstance(a, list) and any(
        isinstance(v, Classes) for v in a) for a in arguments):
        if site.operator not in CLASS_RULES:
            raise site.class_as_number()
        return CLASS_RULES[site.operator](site, *arguments, **options)
    if site.operator == "constant_pad_nd" and len(arguments) > 2 and arguments[2] != 0:
        return linear_operator(site, _overload(node), arguments, options)
    if site.operator in MOVES:
        return move(site, _overload(node), arguments, options)
    if site.operator in LINEAR:
        return linear_operator(site, _overload(node), arguments, options)
    if site.operator not in RULES or (site.operator == "_to_copy" and not _float(node)):
        raise site.unsupported(node.target, _REMEDIES.get(site.operator, FORM))
    if site.operator in LOSSES:  # weights and reductions come in different places: read them by name
        named = {a.name: v for a, v in zip(_overload(node)._schema.arguments, arguments, strict=False)}
        named |= options
        return RULES[site.operator](site, named.pop("self"), named.pop("target"), **named)
    return RULES[site.operator](site, *arguments, **options)


def _float(node: torch.fx.Node) -> bool:
    """Whether a conversion keeps float64, or makes numbers of truth values or of whole ones."""
    source, made = node.all_input_nodes[0].meta["val"].dtype, node.meta["val"].dtype
    if source.is_floating_point:
        return made == torch.float64
    return source == torch.bool or made.is_floating_point


def _arguments(node: torch.fx.Node, environment: Mapping[torch.fx.Node, Any]) -> tuple[list, dict]:
    def value(n: torch.fx.Node) -> Any:  # torch types what it maps as its own arguments, not as ours
        return environment[n]

    def plain(v: Any) -> Any:
        return [plain(x) for x in v] if isinstance(v, list | tuple) else v

    arguments, options = map_arg(node.args, value), map_arg(node.kwargs, value)
    return [plain(a) for a in arguments], {k: plain(v) for k, v in options.items()}


def _moved(site: Site, value: Fixed, result: Any, probes: list[Any]) -> Any:
    """``value`` with elements moved to where its parts' probes are; a list of them for several results."""
    if not isinstance(result, torch.Tensor):
        return [_moved(site, value, r, [p[i] for p in probes]) for i, r in enumerate(result)]
    parts = tuple(replace(p, probe=probe) for p, probe in zip(value.parts, probes, strict=True))
    return replace(value, tensor=result, parts=parts, line=site.line if value.expr is None else value.line)


def _compute(site: Site, node: torch.fx.Node, environment: Mapping[torch.fx.Node, Any]) -> Any:
    """An operator on known tensors: run it. None for learned ones beyond moves and element-wise functions."""

    def run(pick: Callable[[Fixed], torch.Tensor]) -> Any:
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: pick(environment[n]).clone())
        return target(*args, **kwargs)

    target: Any = node.target
    known = [environment[n] for n in node.all_input_nodes]
    named = [v for v in known if v.parts]
    with float64(), torch.no_grad():
        result = run(lambda v: v.tensor)
        if site.operator in MOVES - FILLING and len(named) == 1:
            probes = [run(lambda v, i=i: v.parts[i].probe if v.parts else v.tensor) for i in range(len(named[0].parts))]
            return _moved(site, named[0], result, probes)
        if not any(v.learned for v in known):
            return [Fixed(r) for r in result] if isinstance(result, list | tuple) else Fixed(result)
        args, options = _arguments(node, environment)
        if site.operator in ("cat", "stack") and any(v.learned and v.tensor.ndim > 1 for v in known):
            return joined(site, args[0], lambda x: target(x, *args[1:], **options), result)
        if site.operator in FILLING and len(known) == 1:
            return filled(site, known[0], args, lambda t: run(lambda _: t))
    return (combination(site, args, options, result) or function(site, args, options, result)
            or contraction(site, args, options, result) or linear(site, target, args, options, result))
