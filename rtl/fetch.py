"""From the lines of the sample memory to words: FETCH asks for the lines that hold a row of both samples, and takes a
word a cycle from them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.formats import field
from echolith.rtl.samples import SamplePort

__all__ = ["Fetch"]


class Fetch(wiring.Component):
    """Members
    -------
    start : In(1)
        Strobe: a row begins; ``target``, ``offset`` and ``length`` are held until it ends, the latter two and
        ``record_*`` from three cycles before on.
    target : In(1)
        Words are targets.
    offset, length : In
        Place of the row inside the records, in the narrower of the two fields; words.
    record_a, record_b : In
        Lines where the samples' records begin.
    valid, index, last : In
        A word is wanted, its number in the row, the last of it.
    there : Out(1)
        It can be had. Without it ``valid`` must not be raised.
    inputs, targets : Out
        The word in the cycle after ``valid``.
    streaming, pushed : In
        Lines are taken from this stream instead; every row begins a line.
    port : `SamplePort`
    drop : In(1)
        Strobe before a run.
    """

    def __init__(self, hw: Hardware, *, offset_bits: int, length_bits: int, index_bits: int):
        self.hw = hw
        bits, line = (hw.depths.data - 1).bit_length(), hw.data_width
        super().__init__({
            "start": In(1), "target": In(1), "offset": In(offset_bits), "length": In(length_bits),
            "record_a": In(bits), "record_b": In(bits), "valid": In(1), "index": In(index_bits), "last": In(1),
            "there": Out(1), "inputs": Out(signed(hw.input_bits)), "targets": Out(signed(hw.target_bits)),
            "streaming": In(1), "pushed": In(stream.Signature(line)), "port": Out(SamplePort(bits, line)),
            "drop": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        fields = [field(bits, self.hw.data_width) for bits in (self.hw.input_bits, self.hw.target_bits)]
        unit = min(fields)
        self._low = (self.hw.data_width // unit - 1).bit_length()  # bits of a place inside a line
        self._grains = [(width // unit - 1).bit_length() for width in fields]
        m.d.comb += self.port.drop.eq(self.drop)
        self._ask(m)
        self._take(m, fields)
        return m

    def _kind(self, words: list[Value]) -> Value:
        """Of inputs or of targets."""
        return words[0] if words[0] is words[1] else Mux(self.target, words[1], words[0])

    def _ask(self, m: Module) -> None:
        """All lines of sample a, then of b, in advance as far as they are taken."""
        request, low = self.port.request, self.offset[:self._low]
        size = self._places(self.length)
        more = Signal(max(len(size) + 1 - self._low, 1))  # lines of a row behind its first
        first = [Signal.like(request.payload, name=f"first_{x}") for x in "ab"]
        address, left, second, going = Signal.like(request.payload), Signal.like(more), Signal(), Signal()
        now, remaining = Signal.like(address), Signal.like(more)
        m.d.comb += [
            more.eq((low + size - 1) >> self._low),
            now.eq(Mux(self.start, first[0], address)), remaining.eq(Mux(self.start, more, left)),
            request.payload.eq(now), request.valid.eq((self.start | going) & ~self.streaming & ~self.drop),
        ]
        m.d.sync += [place.eq(record + (self.offset >> self._low))
                     for place, record in zip(first, (self.record_a, self.record_b), strict=True)]
        with m.If(self.start):
            m.d.sync += [going.eq(1), second.eq(0), address.eq(now), left.eq(more)]
        with m.If(request.valid & request.ready):
            with m.If(remaining == 0):
                m.d.sync += [going.eq(self.start | ~second), second.eq(1), address.eq(first[1]), left.eq(more)]
            with m.Else():
                m.d.sync += [address.eq(now + 1), left.eq(remaining - 1)]
        with m.If(self.drop):
            m.d.sync += going.eq(0)

    def _places(self, words: Value) -> Value:
        """Places that so many words of this kind take."""
        a, b = (Cat(Const(0, grain), words) if grain else words for grain in self._grains)
        return self._kind([a, b] if self._grains[0] != self._grains[1] else [a, a])

    def _take(self, m: Module, fields: list[int]) -> None:
        """The word out of its line, registered; the line goes with the last word that it has for this row."""
        lines, place = self.port.lines, Signal(max(self._low, 1))
        line = Mux(self.streaming, self.pushed.payload, lines.payload)
        begin = Mux(self.streaming, 0, self.offset[:self._low])
        m.d.comb += [
            place.eq(begin + self._places(self.index) if self._low else 0),
            self.there.eq(Mux(self.streaming, self.pushed.valid, lines.valid)),
        ]
        ends = []
        for width, grain, word in zip(fields, self._grains, (self.inputs, self.targets), strict=True):
            number = place[grain:self._low]
            ends.append(number.all() if len(number) else 1)
            taken = line.bit_select(Cat(Const(0, (width - 1).bit_length()), number), width) if len(number) else line
            m.d.sync += word.eq(taken[:len(word)])
        done = self.valid & (self.last | Mux(self.target, ends[1], ends[0]))
        m.d.comb += [lines.ready.eq(done & ~self.streaming), self.pushed.ready.eq(done & self.streaming)]
