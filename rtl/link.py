"""The chip's end of the byte link: buffers a request, checks it, carries it out once, answers.

Frames are described in `echolith.host.frames`. Two frame buffers of 256 bytes share one memory: one is executed while
the other is received. A frame that arrives while another still waits replaces it, so the receiver never blocks, and a
SYNC always gets through to abort a transfer that hangs. The host keeps two requests in flight and never sees that.
"""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from echolith.compiler.registers import READ_CYCLES
from echolith.host.frames import MAX_WORDS, Op, Status
from echolith.rtl.frames import BUFFER, Receiver, Sender
from echolith.rtl.memory import make_bank
from echolith.rtl.pipeline import delay

__all__ = ["Link"]


class Link(wiring.Component):
    """Register window and word streams behind a byte link.

    A PUSH waits as long as ``push`` is not ready, a PULL as long as ``pull`` is not valid. A SYNC arriving meanwhile
    aborts them; this is the one case in which ``push.valid`` is withdrawn without a transfer.

    Parameters
    ----------
    far : bool
        More registers, for a fast clock: also those before `bus_r_data`.

    Attributes
    ----------
    rx, tx : stream of 8 bits, in, out
        Bytes from and to the host. ``rx`` is held up for single cycles only.
    bus_addr : out
        Register, in words; stable from a strobe until `READ_CYCLES` after it, or one if not ``far``.
    bus_w_data, bus_w_stb : out
        Write strobe with its data.
    bus_r_stb : out
        Read strobe.
    bus_r_data : in
        The register, `READ_CYCLES` after the read strobe.
    push : stream of 32 bits, out
    pull : stream of 32 bits, in
    """

    rx: In(stream.Signature(8))
    tx: Out(stream.Signature(8))
    bus_addr: Out(8)
    bus_w_data: Out(32)
    bus_w_stb: Out(1)
    bus_r_stb: Out(1)
    bus_r_data: In(32)
    push: Out(stream.Signature(32))
    pull: In(stream.Signature(32))

    def __init__(self, *, far: bool = True):
        self._far = far
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.m_receiver = m_receiver = Receiver(far=self._far)
        m.submodules.m_sender = m_sender = Sender(far=self._far)
        m.submodules.m_memory = m_memory = make_bank(platform, latency=1 + self._far, width=8, depth=2 * BUFFER)
        connect(m, flipped(self.rx), m_receiver.i)
        connect(m, m_sender.o, flipped(self.tx))
        r_buffer = Signal()  # being executed; the other one is being received
        m.d.comb += [
            m_memory.w_en.eq(m_receiver.w_en),
            m_memory.w_addr.eq(Cat(m_receiver.w_addr, ~r_buffer)),
            m_memory.w_data.eq(m_receiver.w_data),
            m_memory.r_en.eq(1),
        ]
        with m.If(m_receiver.take):
            m.d.sync += r_buffer.eq(~r_buffer)
        self._execute(m, m_receiver, m_sender, m_memory, r_buffer)
        return m

    def _execute(self, m, m_receiver, m_sender, m_memory, r_buffer):
        word = Signal(32)  # header, then each payload word: filled byte by byte from the buffer, or sent byte by byte
        r_byte = Signal(2)
        r_read = Signal(range(BUFFER))
        r_started = Signal()  # the header has been dealt with
        # The states IDLE, FETCH, and those before it that read ahead: bits of their own, as much hangs on them.
        r_idle, r_fetch, r_ahead = Signal(init=1), Signal(), Signal()
        m.d.comb += m_receiver.take.eq(r_idle & m_receiver.waiting)
        s_sent = Signal()
        with m.If(r_fetch | s_sent):
            m.d.sync += [word.eq(Cat(word[8:], m_memory.r_data)), r_byte.eq(r_byte + 1)]
        # If a byte is there two cycles behind its address, the second byte's turn comes in the last one before FETCH.
        reads = [r_read, *(Signal(range(BUFFER), init=place, name=f"r_read_{place}") for place in range(1, 3))]
        # No sum on the way to a far memory.
        read = Array(reads)[Cat(r_ahead, r_fetch)] if self._far else (r_read + r_fetch)[:8]
        m.d.comb += m_memory.r_addr.eq(Cat(read, r_buffer))
        m.d.sync += [r_ahead.eq(0), *(place.eq(place + r_fetch) for place in reads)]
        job = _Job(m, word)
        m.d.comb += [
            self.bus_addr.eq(job.addr),
            self.bus_w_data.eq(word),
            self.push.payload.eq(word),
            m_sender.data.eq(word[:8]),
        ]
        with m.FSM(name="executor"):
            with m.State("IDLE"):
                m.d.sync += [r_started.eq(0), *(place.eq(place.init) for place in reads)]
                with m.If(m_receiver.waiting):
                    m.d.sync += r_idle.eq(0)
                    m.next = "TAKEN"
            with m.State("TAKEN"):  # the memory needs a cycle or two in the new buffer
                m.d.sync += (r_ahead if self._far else r_fetch).eq(1)
                m.next = "AHEAD" if self._far else "FETCH"
            if self._far:
                with m.State("AHEAD"):
                    m.d.sync += r_fetch.eq(1)
                    m.next = "FETCH"
            with m.State("FETCH"):
                with m.If(r_byte == 3):
                    m.d.sync += [r_started.eq(1), r_fetch.eq(0)]
                    m.next = "HEADER"
                    with m.If(r_started):
                        m.next = "STORE"
            self._frame_states(m, m_sender, job, r_idle, r_ahead)
            self._word_states(m, job, word, r_fetch, r_ahead, m_receiver.waiting & m_receiver.sync)
            with m.State("SEND"):
                m.d.comb += [m_sender.valid.eq(1), s_sent.eq(m_sender.ready)]
                with m.If(m_sender.ready & (r_byte == 3)):
                    m.d.sync += r_ahead.eq(1)
                    m.next = "NEXT"

    def _frame_states(self, m, m_sender, job, r_idle, r_ahead):
        """From a fetched header to the first word, and from the last word to the end."""
        with m.State("HEADER"):
            job.compare()
            m.next = "JUDGE"
        with m.State("JUDGE"):
            job.judge()
            m.next = "SEQ"
        with m.State("SEQ"):
            m.d.comb += m_sender.valid.eq(1)
            with m.If(m_sender.ready):
                m.next = "STATUS"
        with m.State("STATUS"):
            m.d.comb += [m_sender.valid.eq(1), m_sender.data.eq(job.status)]
            with m.If(m_sender.ready):
                m.d.sync += r_ahead.eq(1)
                m.next = "NEXT"
        for state, port in (("CLOSE", m_sender.close), ("ABORT", m_sender.abort)):
            ends = Signal(name=f"r_{state.lower()}")
            m.d.comb += port.eq(ends)
            with m.State(state):
                m.d.sync += ends.eq(1)
                with m.If(m_sender.done):
                    m.d.sync += [ends.eq(0), r_idle.eq(1)]
                    m.next = "IDLE"

    def _word_states(self, m, job, word, r_fetch, r_ahead, s_abort):
        """One word: from ``word`` to where it belongs (STORE), or from there into ``word`` (LOAD)."""
        given = Mux(job.streamed, self.pull.payload, self.bus_r_data)
        with m.State("NEXT"):
            m.next = "READ_1" if self._far else "LOAD"
            with m.If(job.none):
                m.next = "CLOSE"
            with m.Elif(job.inward):
                m.d.sync += r_fetch.eq(1)
                m.next = "FETCH"
            with m.Else():
                m.d.comb += self.bus_r_stb.eq(~job.streamed)
        for cycle in range(1, READ_CYCLES if self._far else 1):
            with m.State(f"READ_{cycle}"):
                m.next = f"READ_{cycle + 1}" if cycle + 1 < READ_CYCLES else "LOAD"
        with m.State("STORE"):
            m.d.comb += [self.bus_w_stb.eq(~job.streamed), self.push.valid.eq(job.streamed)]
            with m.If(~job.streamed | self.push.ready):
                job.count()
                m.next = "DONE"
            with m.Elif(s_abort):
                m.next = "ABORT"
        with m.State("DONE"):
            m.d.sync += r_ahead.eq(1)
            m.next = "NEXT"
        if self._far:
            loaded = delay(m, given, 1, "loaded")
            with m.State("LOADED"):
                m.d.sync += word.eq(loaded)
                m.next = "SEND"
        with m.State("LOAD"):
            m.d.comb += self.pull.ready.eq(job.streamed)
            with m.If(~job.streamed | self.pull.valid):
                job.count()
                m.d.sync += [] if self._far else word.eq(given)
                m.next = "LOADED" if self._far else "SEND"
            with m.Elif(s_abort):
                m.next = "ABORT"


class _Job:
    """Registers of the request being executed, and what is decided from its header."""

    def __init__(self, m, word):
        self._m = m
        self._word = word
        self._last = Signal(8)  # sequence number of the last request carried out
        self._synced = Signal()  # cleared by reset only: a host that missed the reset is refused
        self.addr = Signal(8)
        self.left = Signal(range(MAX_WORDS + 1))  # words still to transfer
        self.none = Signal()  # left is 0
        self.inward = Signal()  # host to chip
        self.streamed = Signal()  # stream rather than registers
        self.status = Signal(Status)
        self._done = Signal()  # a word was, in the cycle before
        self._next, self._again = Signal(), Signal()  # the request that follows the last one; the last one
        self._op = Signal(8)  # one bit per `Op`, none of an unknown one
        m.d.sync += [self.none.eq(self.left == 0), self._done.eq(0)]
        with m.If(self._done):
            m.d.sync += [self.left.eq(self.left - 1), self.none.eq(self.left == 1), self.addr.eq(self.addr + 1)]

    def compare(self):
        """In the cycle before `judge`."""
        ahead = (self._word[:8] - self._last)[:8]
        self._m.d.sync += [self._next.eq(self._synced & (ahead == 1)), self._again.eq(self._synced & (ahead == 0)),
                           *(self._op[op].eq(self._word[8:16] == op) for op in Op)]

    def judge(self):
        """In a cycle in which ``word`` holds the header: accept, acknowledge again, or refuse."""
        m = self._m
        seq, _, addr, count = (self._word[i : i + 8] for i in range(0, 32, 8))
        op = self._op
        m.d.sync += [
            self.addr.eq(addr),
            self.left.eq(0),
            self.inward.eq(op[Op.WRITE] | op[Op.PUSH]),
            self.streamed.eq(op[Op.PUSH] | op[Op.PULL]),
            self.status.eq(Status.OK),
        ]
        with m.If(op == 0):
            m.d.sync += self.status.eq(Status.UNKNOWN)
        with m.Elif(op[Op.SYNC]):
            m.d.sync += [self._last.eq(seq), self._synced.eq(1)]
        with m.Elif(self._next):
            m.d.sync += [self._last.eq(seq), self.left.eq(count)]
        with m.Elif(self._again & ~op[Op.PULL]):
            # A repeated PULL would bring the following words: the host sets the pointer again instead.
            with m.If(op[Op.READ]):
                m.d.sync += self.left.eq(count)
        with m.Else():
            m.d.sync += self.status.eq(Status.REFUSED)

    def count(self):
        """One word is done; it counts a cycle later."""
        self._m.d.sync += self._done.eq(1)
