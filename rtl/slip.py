"""SLIP framing (RFC 1055): bytes to and from frames that end in END."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Decoder", "Encoder", "Token", "TokenRegister"]

_END, _ESC, _ESC_END, _ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD


class Token(data.Struct):
    """One byte of a frame, or, when ``end`` is set, the end of the frame (``data`` is then meaningless)."""

    data: 8
    end: 1


class TokenRegister(wiring.Component):
    """A register on the way of tokens.

    Parameters
    ----------
    often : bool
        They may come in every cycle, not only in every second one; whether they may then waits for ``o.ready``.

    Attributes
    ----------
    i, o : stream of Token, in, out
    """

    i: In(stream.Signature(Token))
    o: Out(stream.Signature(Token))

    def __init__(self, *, often: bool):
        self._often = often
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.i.ready.eq(~self.o.valid | (self.o.ready if self._often else 0))
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


class Decoder(wiring.Component):
    """Removes the escapes; adds no latency and holds no byte.

    An escape followed by anything but its two legal bytes yields nothing, so the frame comes out short and its length
    check fails; an END always ends the frame, even after an escape, so noise cannot swallow the following frame.

    Attributes
    ----------
    i : stream of 8 bits, in
    o : stream of Token, out
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(Token))

    def elaborate(self, platform):
        m = Module()
        r_escaped = Signal()
        s_end = self.i.payload == _END
        m.d.comb += [
            self.i.ready.eq(self.o.ready),
            self.o.p.end.eq(s_end),
            self.o.p.data.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & (self.i.payload != _ESC)),
        ]
        with m.If(r_escaped & ~s_end):
            m.d.comb += self.o.valid.eq(self.i.valid & ((self.i.payload == _ESC_END) | (self.i.payload == _ESC_ESC)))
            m.d.comb += self.o.p.data.eq(_END)
            with m.If(self.i.payload[0]):  # 0xDD; 0xDC is even
                m.d.comb += self.o.p.data.eq(_ESC)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += r_escaped.eq((self.i.payload == _ESC) & ~r_escaped)
        return m


class Encoder(wiring.Component):
    """Escapes the bytes of a frame and writes END after the last. A token waits for a cycle, in which it is looked at,
    so that who waits for ``i.ready`` does not wait for that.

    Attributes
    ----------
    i : stream of Token, in
    o : stream of 8 bits, out
    """

    i: In(stream.Signature(Token))
    o: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        r_escaped = Signal()  # the ESC has been sent, its second byte follows
        r_known, r_special = Signal(), Signal()
        m.d.sync += [r_known.eq(self.i.valid & ~self.i.ready),
                     r_special.eq(~self.i.p.end & ((self.i.p.data == _END) | (self.i.p.data == _ESC)))]
        m.d.comb += [
            self.o.valid.eq(r_known),
            self.o.payload.eq(self.i.p.data),
            self.i.ready.eq(r_known & self.o.ready & (r_escaped | ~r_special)),
        ]
        with m.If(self.i.p.end):
            m.d.comb += self.o.payload.eq(_END)
        with m.Elif(r_escaped):
            m.d.comb += self.o.payload.eq(_ESC_END)
            with m.If(self.i.p.data[0]):  # 0xDB; 0xC0 is even
                m.d.comb += self.o.payload.eq(_ESC_ESC)
        with m.Elif(r_special):
            m.d.comb += self.o.payload.eq(_ESC)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += r_escaped.eq(r_special & ~r_escaped)
        return m
