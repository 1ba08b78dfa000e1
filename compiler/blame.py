"""Which line of a method has no finite derivative: found by running its trace operator by operator."""

import torch
from torch.fx.node import Node

from echolith.compiler.trace import double, float64, parameters, shapes, trace

__all__ = ["steep_line"]

_SCALES = (0.0, 1.0, 4.0, 16.0, 64.0)  # of the states that are tried
_STEEP = frozenset(("log", "log2", "log10", "log1p", "div", "reciprocal", "sqrt", "rsqrt", "pow", "norm", "tan", "acos",
                    "linalg_vector_norm", "asin", "acosh", "atanh", "logit", "xlogy", "std"))  # fmt: skip
_LAST = {"energy": ("u", "inputs"), "cost": ("y", "outputs")}


def steep_line(model: torch.nn.Module, method: str) -> str | None:
    """The line of the first operator whose value or derivative is not finite, of states at the origin and then farther
    away; else of the only one that could be; None if there is no telling."""
    model = double(model)
    try:
        traced = trace(model, method, _arguments(model, method, 0.5))
        found = [_Run(traced.module).line(model, _arguments(model, method, scale)) for scale in _SCALES]
    except Exception:  # the refusal itself is what the user should see, not what its explanation runs into
        return None
    lines = {node.stack_trace for node in traced.graph.nodes if _operator(node) in _STEEP}
    return next((line for line in found if line), next(iter(lines)) if len(lines) == 1 else None)


def _operator(node: Node) -> str:
    return getattr(node.target, "__name__", "").partition(".")[0].removesuffix("_")


def _arguments(model: torch.nn.Module, method: str, scale: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes: dict = dict(shapes(model))
    if method in _LAST:
        name, width = _LAST[method]
        sizes[name] = (int(getattr(model, width)),)
    return {n: scale * torch.randn(s, generator=generator, dtype=torch.float64) for n, s in sizes.items()}


class _Run(torch.fx.Interpreter):
    """Keeps every value and its gradient."""

    def line(self, model: torch.nn.Module, arguments: dict[str, torch.Tensor]) -> str | None:
        """Of the first operator whose value is not finite, else of the last whose derivative makes its operands'
        gradients so."""
        self.values: dict[Node, torch.Tensor] = {}
        given = [v.detach() for v in parameters(model).values()]
        leaves = [*given, *(v.requires_grad_() for v in arguments.values())]
        with float64(), torch.enable_grad():
            (result,) = self.run(*leaves, enable_io_processing=False)
        bad = [n for n, v in self.values.items() if not _finite(v)]
        if bad:
            return bad[0].stack_trace
        result.sum().backward()
        for node, value in reversed(self.values.items()):
            inputs = [self.values[n].grad for n in node.all_input_nodes if n in self.values]
            if _finite(value.grad) and not all(map(_finite, inputs)):
                return node.stack_trace
        return None

    def run_node(self, n: Node):
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.requires_grad and n.op != "output":
            value.retain_grad()
            self.values[n] = value
        return value


def _finite(value: torch.Tensor | None) -> bool:
    return value is None or bool(torch.isfinite(value).all())
