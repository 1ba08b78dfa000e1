"""Several element-wise pipelines of which a command picks one."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.isa import KIND_BITS
from echolith.compiler.pipeline import Pipeline
from echolith.rtl.pipeline import ElementPipeline, delay

__all__ = ["Kinds", "feed", "kinds"]


class Kinds(wiring.Component):
    """Pipelines side by side. All outputs are valid ``latency`` cycles after the inputs, the longest one's; an output
    that the chosen pipeline lacks is zero.

    Members
    -------
    kind : In
        Held while elements are inside.
    <input name> : In(signed), <output name> : Out(signed)
    table_w_* : see `ElementPipeline`; the slots of kind 0 come first
    """

    def __init__(self, pipelines: tuple[Pipeline, ...], *, width: int, segments: int):
        self.pipes = [ElementPipeline(p, width=width, segments=segments) for p in pipelines]
        self.latency = max(pipe.latency for pipe in self.pipes)
        bits = max(KIND_BITS, (len(pipelines) - 1).bit_length())
        super().__init__({
            "kind": In(bits), **self._union([[n for n, _ in p.inputs] for p in pipelines], In),
            **self._union([[n for n, _ in p.outputs] for p in pipelines], Out),
            "table_w_addr": In(segments), "table_w_data": In(width), "table_w_half": In(1),
            "table_w_en": In(max(1, sum(len(p.tables()) for p in pipelines))),
        })

    def _union(self, names: list[list[str]], direction) -> dict:
        """Ports of all pipelines by name, as wide as the widest."""
        found: dict = {}
        for pipe, mine in zip(self.pipes, names, strict=True):
            for name in mine:
                shape = getattr(pipe, name).shape()
                found[name] = max(found.get(name, shape), shape, key=lambda s: s.width)
        return {name: direction(shape) for name, shape in found.items()}

    def elaborate(self, platform):
        m = Module()
        first = 0
        for index, pipe in enumerate(self.pipes):
            m.submodules[f"kind_{index}"] = pipe
            tables = len(pipe.pipeline.tables())
            feed(m, pipe, table_w_addr=self.table_w_addr, table_w_data=self.table_w_data,
                 table_w_half=self.table_w_half, table_w_en=self.table_w_en[first:first + tables],
                 **{name: getattr(self, name) for name, _ in pipe.pipeline.inputs})
            first += tables
        with m.Switch(self.kind):
            for index, pipe in enumerate(self.pipes):
                outputs = [name for name, _ in pipe.pipeline.outputs]
                late = [delay(m, getattr(pipe, name), self.latency - pipe.latency, f"{name}_{index}")
                        for name in outputs]
                with m.Case(index):
                    m.d.comb += [getattr(self, name).eq(value) for name, value in zip(outputs, late, strict=True)]
        return m


def kinds(pipelines: tuple[Pipeline, ...], *, width: int, segments: int) -> ElementPipeline | Kinds:
    """A single pipeline needs no choice."""
    if len(pipelines) == 1:
        return ElementPipeline(pipelines[0], width=width, segments=segments)
    return Kinds(pipelines, width=width, segments=segments)


def feed(m: Module, pipe: ElementPipeline | Kinds, **values) -> None:
    """Connect those of the ``values`` for which the pipeline has an input."""
    m.d.comb += [getattr(pipe, name).eq(value) for name, value in values.items() if name in pipe.signature.members]
