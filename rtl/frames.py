"""The two ends of a frame on the chip: bytes into checked requests in a buffer, answers into bytes.

The frames are described in `echolith.host.frames`.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out, connect, flipped

from echolith.host.frames import MAX_WORDS, Op
from echolith.rtl.pipeline import delay
from echolith.rtl.slip import Decoder, Encoder, TokenRegister

__all__ = ["BUFFER", "Receiver", "Sender"]

BUFFER = 4 + 4 * MAX_WORDS  # bytes: header and payload, a power of two; the CRC is not stored
_NEVER = 2 * BUFFER + 6  # a frame length that the counter does not reach; its low bits are those of all lengths


def _crc():
    return catalog.CRC16_XMODEM().create()


class Receiver(wiring.Component):
    """Writes frames into the buffer that the executor does not use, and announces the good ones.

    Parameters
    ----------
    far : bool
        Tokens pass a register.

    Attributes
    ----------
    i : stream of 8 bits, in
    w_en, w_addr, w_data : out
        Writes of one byte into the buffer being filled.
    waiting : out
        That buffer holds a good frame, until it is taken or the next frame begins.
    sync : out
        While ``waiting``: the frame is a SYNC.
    take : in
        Strobe, only while ``waiting``: the buffers swap after this cycle.
    """

    i: In(stream.Signature(8))
    w_en: Out(1)
    w_addr: Out(8)
    w_data: Out(8)
    waiting: Out(1)
    sync: Out(1)
    take: In(1)

    def __init__(self, *, far: bool):
        self._far = far
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.m_decoder = m_slip = m_decoder = Decoder()
        if self._far:
            m.submodules.m_slip = m_slip = TokenRegister(often=True)
            connect(m, m_decoder.o, m_slip.i)
        m.submodules.m_crc = m_crc = _crc()
        connect(m, flipped(self.i), m_decoder.i)
        r_length = Signal(range(BUFFER + 4))  # bytes so far; sticks at a length that no frame has
        r_expect = Signal(10, init=_NEVER)  # bytes the header asks for, CRC included; bit 9: an impossible count
        r_loaded = Signal()  # the op brings its words along
        s_byte = m_slip.o.valid & m_slip.o.ready & ~m_slip.o.p.end
        s_data = m_slip.o.p.data

        # At the moment of a swap a byte would go into the buffer that is being handed over.
        m.d.comb += m_slip.o.ready.eq(~self.take)
        m.d.comb += [
            m_crc.data.eq(s_data),
            m_crc.valid.eq(s_byte),
            self.w_en.eq(s_byte & ~r_length[8]),
            self.w_addr.eq(r_length),
            self.w_data.eq(s_data),
        ]
        with m.If(m_slip.o.valid & ~m_slip.o.p.end):  # perhaps twice, if the byte has to wait
            with m.Switch(r_length):
                with m.Case(1):
                    m.d.sync += self.sync.eq(s_data == Op.SYNC)
                    m.d.sync += r_loaded.eq((s_data == Op.WRITE) | (s_data == Op.PUSH))
                with m.Case(3):
                    m.d.sync += r_expect[:9].eq(Mux(r_loaded, (s_data[:6] << 2) + 6, 6))
                    m.d.sync += r_expect[9].eq(s_data[6:].any())
        with m.If(self.take):
            m.d.sync += self.waiting.eq(0)
        with m.Elif(s_byte):
            m.d.sync += self.waiting.eq(0)
            with m.If(r_length != BUFFER + 3):
                m.d.sync += r_length.eq(r_length + 1)
        with m.Elif(m_slip.o.valid):
            m.d.comb += m_crc.start.eq(1)
            m.d.sync += r_length.eq(0)
            # Length as well: the CRC starts at zero and cannot see missing or added zeros in front.
            with m.If((r_length == r_expect) & m_crc.match_detected):
                m.d.sync += self.waiting.eq(1)
        return m


class Sender(wiring.Component):
    """Appends the CRC to what the executor says, and frames it.

    Parameters
    ----------
    far : bool
        Tokens pass a register.

    Attributes
    ----------
    data, valid, ready : in, in, out
        Bytes of the response.
    close, abort : in
        Levels, instead of ``valid``: end the frame, with its CRC or (to make the host drop it) without.
    done : out
        Strobe: the END of a closed or aborted frame is on its way.
    o : stream of 8 bits, out
    """

    data: In(8)
    valid: In(1)
    ready: Out(1)
    close: In(1)
    abort: In(1)
    done: Out(1)
    o: Out(stream.Signature(8))

    def __init__(self, *, far: bool):
        self._far = far
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.m_encoder = m_slip = m_encoder = Encoder()
        if self._far:
            m.submodules.m_slip = m_slip = TokenRegister(often=False)
            connect(m, m_slip.o, m_encoder.i)
        m.submodules.m_crc = m_crc = _crc()
        connect(m, m_encoder.o, flipped(self.o))
        r_crc_left = Signal(2, init=2)
        s_end = self.abort | (self.close & (r_crc_left == 0))
        m.d.comb += [
            m_slip.i.valid.eq(self.valid | self.close | self.abort),
            m_slip.i.p.end.eq(s_end),
            m_slip.i.p.data.eq(Mux(self.close, m_crc.crc[8:], self.data)),
            self.ready.eq(m_slip.i.ready),
            self.done.eq(s_end & m_slip.i.ready),
        ]
        # A CRC is fed its own high byte after it was sent: that shifts the low byte up. Tokens that pass a register
        # leave a cycle for it.
        fed = Cat(m_slip.i.p.data, m_slip.i.valid & m_slip.i.ready & ~s_end, self.done)
        m.d.comb += Cat(m_crc.data, m_crc.valid, m_crc.start).eq(delay(m, fed, int(self._far), "fed"))
        with m.If(self.done):
            m.d.sync += r_crc_left.eq(2)
        with m.Elif(self.close & m_slip.i.ready):
            m.d.sync += r_crc_left.eq(r_crc_left - 1)
        return m
