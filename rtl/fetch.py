"""From the lines of the sample memory to words: FETCH asks for the lines that hold a row of both samples, and takes a
word a cycle from them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.formats import field
from echolith.compiler.timing import lined
from echolith.rtl.pipeline import delay
from echolith.rtl.samples import SamplePort

__all__ = ["Fetch"]


class Fetch(wiring.Component):
    """Members
    -------
    start : In(1)
        Strobe: a row begins, with its first word in the cycle after the next at the earliest; there is one more cycle
        between the two samples. ``offset`` and ``record_*`` are held until it ends, from a cycle before on, ``target``
        from the next cycle on.
    target : In(1)
        Words are targets.
    offset : In
        Place of the row inside the records, in the narrower of the two fields.
    record_a, record_b : In
        Lines where the samples' records begin.
    wanted, second, last : In
        The next word of the row is wanted, of sample b, the last of it.
    there, taken, waiting : Out(1)
        It can be had; it is taken; it could be had if the stream had one.
    inputs, targets : Out
        The word, `timing.picked` cycles after ``taken``.
    streaming, pushed : In
        Lines are taken from this stream instead; every row begins a line.
    port : `SamplePort`
    drop : In(1)
        Strobe before a run.
    """

    def __init__(self, hw: Hardware, *, offset_bits: int):
        self.hw = hw
        bits, line = (hw.depths.data - 1).bit_length(), hw.data_width
        super().__init__({
            "start": In(1), "target": In(1), "offset": In(offset_bits),
            "record_a": In(bits), "record_b": In(bits), "wanted": In(1), "second": In(1), "last": In(1),
            "there": Out(1), "taken": Out(1), "waiting": Out(1),
            "inputs": Out(signed(hw.input_bits)), "targets": Out(signed(hw.target_bits)),
            "streaming": In(1), "pushed": In(stream.Signature(line)), "port": Out(SamplePort(bits, line)),
            "drop": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        fields = [field(bits, self.hw.data_width) for bits in (self.hw.input_bits, self.hw.target_bits)]
        unit = min(fields)
        self._low = (self.hw.data_width // unit - 1).bit_length()  # bits of a place inside a line
        self._grains = [(width // unit - 1).bit_length() for width in fields]
        self._going = Signal()  # a sample's first line has not been asked for yet
        self._ask(m, *self._take(m, fields))
        return m

    def _ask(self, m: Module, done: Value, full: Value) -> None:
        """A sample's first line in the cycle after the start, or after the other's last word; every other with the last
        word of the one before."""
        request, going = self.port.request, self._going
        address, again = Signal.like(request.payload), done & self.last & ~self.second
        records, line = (self.record_a, self.record_b), self.offset >> self._low
        if self.hw.overlap:
            first = Mux(self.start, *(delay(m, (record + line)[:len(address)], 1, "first") for record in records))
        else:
            first = Mux(self.start, *records) + line
        m.d.comb += [
            request.payload.eq(address), self.port.drop.eq(self.drop),
            request.valid.eq(self.wanted & ((going & ~self.streaming) | (self.port.lines.valid & full & ~self.last))),
        ]
        with m.If(request.valid & request.ready):
            m.d.sync += address.eq(address + 1)
        with m.If(self.start | again):
            m.d.sync += [going.eq(1), address.eq(first)]
        with m.Else():
            m.d.sync += going.eq(request.valid & ~request.ready)

    def _take(self, m: Module, fields: list[int]) -> tuple[Value, Value]:
        """The word out of its line, registered; the line goes with the last word that it has for this row. Returns
        whether it does, and whether it has no other."""
        lines, place = self.port.lines, Signal(max(self._low, 1))
        begin = delay(m, Mux(self.streaming, 0, self.offset[:self._low]), int(self.hw.overlap), "begin")
        m.d.comb += [
            self.there.eq(Mux(self.streaming, self.pushed.valid & ~self._going, lines.valid)),
            self.waiting.eq(self.streaming & ~self.pushed.valid & ~self._going),
            self.taken.eq(self.wanted & self.there),
        ]
        if self._low:
            step = Mux(self.target, *(1 << grain for grain in reversed(self._grains)))
            with m.If(self.start | (self.taken & self.last)):
                m.d.sync += place.eq(begin)
            with m.Elif(self.taken):
                m.d.sync += place.eq(place + step)
        words, ends = (self.inputs, self.targets), [place[grain:self._low] for grain in self._grains]
        late, far, top = lined(self.hw) - 1, int(self.hw.overlap), self._low
        found = Mux(self.streaming, delay(m, self.pushed.payload, late, "pushed"), lines.payload)
        there = delay(m, place, late, "place")
        for index, kind in enumerate(sorted(range(2), key=lambda k: -fields[k])):  # the narrower out of the wider
            number = there[self._grains[kind]:top]
            if len(number):
                begin = Cat(Const(0, (fields[kind] - 1).bit_length()), number)
                found = found.bit_select(begin, fields[kind])
            top = self._grains[kind]
            m.d.comb += words[kind].eq(delay(m, found, 1 + far * (1 - index), "word")[:len(words[kind])])
            found, there = delay(m, found, far, "field"), delay(m, there, far, "place_later")
        full = [end.all() if len(end) else Const(1) for end in ends]
        done, empty = Signal(), Mux(self.target, full[1], full[0])
        m.d.comb += [
            done.eq(self.taken & (self.last | empty)),
            lines.ready.eq(done & ~self.streaming),
            # Whether or not there is a word: a link's way to it and back is a long one.
            self.pushed.ready.eq(self.streaming & self.wanted & ~self._going & (self.last | empty)),
        ]
        return done, empty
