"""Hardware of an element-wise pipeline: one register stage per unit of its `stages`."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from echolith.compiler.pipeline import Op, Pipeline, apply, latency, schedule
from echolith.rtl.memory import make_bank
from echolith.rtl.multiplier import Multiplier, multiplier
from echolith.sim import arith

__all__ = ["ElementPipeline", "copied", "delay", "one_of"]

WIDEST = 18  # operands of one multiplier


def delay(m: Module, value, stages: int, name: str = "delay"):
    """``value`` some cycles later."""
    for stage in range(stages):
        register = Signal.like(value, name=f"{name}_{stage}", reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value


def copied(m: Module, value, name: str):
    """``value`` a cycle later, in a register that synthesis does not merge with others of the same value."""
    copy = Signal.like(value, name=name, reset_less=True, attrs={"keep": 1})
    m.d.sync += copy.eq(value)
    return copy


def one_of(choices):
    """The value of the one condition that holds, 0 if none does; ``choices`` are (condition, value)."""
    return reduce(or_, (Mux(condition, value, 0) for condition, value in choices))


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
        values, ready, table, stages = [], schedule(self.pipeline), 0, self.pipeline.stages
        for index, op in enumerate(self.pipeline.ops):
            if op.kind == "input":
                values.append(getattr(self, op.name))
                continue
            start = ready[index] - stages[op.kind]
            args = [self._aligned(m, values[a], self.pipeline.ops[a], start - ready[a]) for a in op.args]
            if op.kind == "table":
                values.append(self._table(m, platform, args[0], table))
                table += 1
            elif op.kind == "mul" and self.pipeline.deep:
                values.append(_product(m, platform, *args))
            elif stages[op.kind]:
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

    def _table(self, m: Module, platform, x, index: int):
        """Read value and difference, multiply the difference by the fraction, add."""
        w, s, deep = self.width, self.segments, self.pipeline.deep
        argument, x = x, Signal(signed(w))  # extends a narrow argument
        m.d.comb += x.eq(argument)
        halves = []
        for half in range(2):
            m.submodules += (words := make_bank(platform, latency=1 + deep, width=w, depth=1 << s))
            m.d.comb += [
                words.r_addr.eq(arith.table_address(x, w, s)), words.r_en.eq(1), words.w_addr.eq(self.table_w_addr),
                words.w_data.eq(self.table_w_data),
                words.w_en.eq(self.table_w_en[index] & (self.table_w_half == half)),
            ]
            halves.append(words.r_data.as_signed())
        fraction = Cat(delay(m, arith.table_fraction(x, w, s), 1 + deep), 0).as_signed()
        out = Signal(signed(w), reset_less=True)
        product = _product(m, platform, halves[1], fraction) if deep else _registered(m, halves[1] * fraction)
        # Rounding half up adds the highest bit dropped: as the carry into the one adder.
        value = delay(m, halves[0], 1 + deep)
        summed = Cat(1, value).as_signed() + Cat(product[w - s - 1], product >> w - s).as_signed()
        m.d.sync += out.eq(arith.wrap(summed >> 1, w))
        return out


def _registered(m: Module, value):
    register = Signal.like(value, reset_less=True)
    m.d.sync += register.eq(value)
    return register


def _product(m: Module, platform, a, b):
    """Behind operand and product registers: those of one multiplier, if the operands fit it."""
    a, b = (Const(v, signed(bits_for(v, require_sign_bit=True))) if isinstance(v, int) else v for v in (a, b))
    widest = max(len(a), len(b))
    m.submodules += (cell := multiplier(platform, width=widest) if widest <= WIDEST else Multiplier(width=widest))
    m.d.comb += [cell.a.eq(a), cell.b.eq(b)]
    return cell.p[:len(a) + len(b)].as_signed()


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


