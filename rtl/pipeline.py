"""Hardware of an element-wise pipeline: one register stage per unit of `compiler.pipeline.LATENCY`."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from echolith.compiler.pipeline import LATENCY, Op, Pipeline, apply, latency, schedule
from echolith.rtl.memory import Bank
from echolith.sim import arith

__all__ = ["ElementPipeline", "delay"]


def delay(m: Module, value, stages: int, name: str = "delay"):
    """``value`` some cycles later."""
    for stage in range(stages):
        register = Signal.like(value, name=f"{name}_{stage}", reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value


class ElementPipeline(wiring.Component):
    """One element per cycle; every output is valid ``ready[name]`` cycles after its inputs.

    Parameters
    ----------
    pipeline : Pipeline
    width : int
        Bits of a table's argument and words.
    segments : int
        log2 of the pieces of a table.
    early : collection of str
        Outputs that are not held back until the last one, ``latency`` cycles after the inputs.

    Members
    -------
    <input name> : In(signed), <output name> : Out(signed)
    table_w_* : write port of the tables, one slot per table op in order; ``table_w_half`` picks value or difference.
    """

    def __init__(self, pipeline: Pipeline, *, width: int, segments: int, early: tuple[str, ...] = ()):
        self.pipeline, self.width, self.segments = pipeline, width, segments
        self.latency, done = latency(pipeline), schedule(pipeline)
        self.ready = {name: done[index] if name in early else self.latency for name, index in pipeline.outputs}
        widths = _widths(pipeline, width)
        super().__init__({
            **{name: In(signed(bits)) for name, bits in pipeline.inputs},
            **{name: Out(signed(widths[index])) for name, index in pipeline.outputs},
            "table_w_addr": In(segments), "table_w_data": In(width), "table_w_half": In(1),
            "table_w_en": In(max(1, len(pipeline.tables()))),
        })

    def elaborate(self, platform):
        m = Module()
        values, ready, table = [], schedule(self.pipeline), 0
        for index, op in enumerate(self.pipeline.ops):
            if op.kind == "input":
                values.append(getattr(self, op.name))
                continue
            start = ready[index] - LATENCY[op.kind]
            args = [self._aligned(m, values[a], self.pipeline.ops[a], start - ready[a]) for a in op.args]
            if op.kind == "table":
                values.append(self._table(m, args[0], table))
                table += 1
            elif LATENCY[op.kind]:
                result = apply(op, *args)
                register = Signal(signed(len(result)), name=f"{op.kind}_{index}", reset_less=True)
                m.d.sync += register.eq(result)
                values.append(register)
            else:
                values.append(apply(op, *args))
        for name, index in self.pipeline.outputs:
            value = self._aligned(m, values[index], self.pipeline.ops[index], self.ready[name] - ready[index])
            m.d.comb += getattr(self, name).eq(value)
        return m

    @staticmethod
    def _aligned(m: Module, value, op: Op, stages: int):
        return value if op.kind == "const" else delay(m, value, stages)

    def _table(self, m: Module, x, index: int):
        """Read value and difference, multiply the difference by the fraction, add."""
        w, s = self.width, self.segments
        argument, x = x, Signal(signed(w))  # extends a narrow argument
        m.d.comb += x.eq(argument)
        halves = []
        for half in range(2):
            m.submodules += (bank := Bank(width=w, depth=1 << s))
            m.d.comb += [
                bank.r_addr.eq(arith.table_address(x, w, s)), bank.r_en.eq(1), bank.w_addr.eq(self.table_w_addr),
                bank.w_data.eq(self.table_w_data),
                bank.w_en.eq(self.table_w_en[index] & (self.table_w_half == half)),
            ]
            halves.append(bank.r_data.as_signed())
        fraction = delay(m, arith.table_fraction(x, w, s), 1)
        product, out = Signal(signed(2 * w - s + 1), reset_less=True), Signal(signed(w), reset_less=True)
        m.d.sync += product.eq(halves[1] * fraction)
        # Rounding half up adds the highest bit dropped: as the carry into the one adder.
        value = delay(m, halves[0], 1)
        summed = Cat(1, value).as_signed() + Cat(product[w - s - 1], product >> w - s).as_signed()
        m.d.sync += out.eq(arith.wrap(summed >> 1, w))
        return out


def _widths(pipeline: Pipeline, width: int) -> list[int]:
    """Bits of every op's result, by building the expressions once."""
    values = []
    for op in pipeline.ops:
        if op.kind == "input":
            values.append(Signal(signed(op.n)))
        elif op.kind == "table":
            values.append(Signal(signed(width)))
        else:
            result = apply(op, *(values[a] for a in op.args))
            values.append(result if isinstance(result, int) else Signal(signed(len(result))))
    return [bits_for(v, require_sign_bit=True) if isinstance(v, int) else len(v) for v in values]


