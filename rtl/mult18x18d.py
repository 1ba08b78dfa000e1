"""ECP5's multiplier with its own operand and product registers."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal

from echolith.rtl.multiplier import Multiplier

__all__ = ["Mult18x18d"]

_WIDTH = 18


class Mult18x18d(Multiplier):
    """A `Multiplier` of at most 18 bits in one MULT18X18D.

    Raises
    ------
    ValueError
        If the width is above 18.
    """

    def __init__(self, *, width: int):
        if width > _WIDTH:
            raise ValueError(f"a MULT18X18D has operands of {_WIDTH} bits, not {width}")
        super().__init__(width=width)

    def elaborate(self, platform):
        m = Module()
        a, b, p = Signal(_WIDTH), Signal(_WIDTH), [Signal(name=f"p{i}") for i in range(2 * _WIDTH)]
        m.d.comb += [a.eq(self.a), b.eq(self.b), self.p.eq(Cat(p))]  # narrow operands are extended
        clocked = {f"p_REG_{name}_{pin}": f"{pin}0" for name in ("INPUTA", "INPUTB", "OUTPUT")
                   for pin in ("CLK", "CE", "RST")}
        m.submodules.cell = Instance(
            "MULT18X18D", **clocked, p_REG_PIPELINE_CLK="NONE", p_REG_INPUTC_CLK="NONE", p_SOURCEB_MODE="B_SHIFT",
            p_MULT_BYPASS="DISABLED", p_RESETMODE="SYNC", p_GSR="DISABLED", p_CLK0_DIV="ENABLED",
            i_CLK0=ClockSignal(), i_CE0=Const(1), i_RST0=Const(0), i_SIGNEDA=Const(1), i_SIGNEDB=Const(1),
            i_SOURCEA=Const(0), i_SOURCEB=Const(0),
            **{f"i_A{i}": a[i] for i in range(_WIDTH)}, **{f"i_B{i}": b[i] for i in range(_WIDTH)},
            **{f"o_P{i}": p[i] for i in range(2 * _WIDTH)})
        return m
