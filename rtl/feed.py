"""Rows of a pair's records on their way to the inputs or the targets: order, sample memory, fetch."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.timing import fetched, lined, picked
from echolith.rtl.command import Command, older
from echolith.rtl.fetch import Fetch
from echolith.rtl.memory import make_bank
from echolith.rtl.pipeline import delay
from echolith.rtl.samples import SampleMemory
from echolith.rtl.ticks import Words

__all__ = ["Feed"]


class Feed(wiring.Component):
    """Members
    -------
    go, first : In
        Strobe before a run, and the place of its first pair in the order memory (0 without `Hardware.overlap`).
    next : In(1)
        Strobe: take the next two records of the order memory; they are there `fetched` + 1 and + 2 cycles later.
    start, next_command, length, offset, offset_older : In
        Strobe: the FETCH that waits begins; its words and its place in the records, which stand until it is over or,
        if `Hardware.paired`, until the next cycle; see `Sequencer`.
    stop : In(1)
        End here.
    streaming, pushed : In
        Words come from the link.
    running, ended : Out(1)
        From the cycle after ``start`` on; strobe with the last word.
    waiting : Out(1)
        For a word of the link.
    found, inputs, targets : Out
        A word: whether it is one, its slot, its number in the row; its value as the one or the other.
    fetch : Out(Command)
        The FETCH that it is of.
    masked_en, masked : Out
        Which samples of the pair are taken now, and whether they have no cost.
    order_w_en, lines_w_en, w_addr, w_data : writes, at any time
    """

    def __init__(self, hw: Hardware, *, length_bits: int, offset_bits: int, word_bits: int):
        self.hw, self.offset_bits = hw, offset_bits
        self.index_bits = max(hw.depths.units, hw.depths.outputs).bit_length()  # of a count of words
        self.bits, self.order_bits = ((depth - 1).bit_length() for depth in (hw.depths.data, hw.depths.order))
        super().__init__({
            "go": In(1), "first": In(self.order_bits + 1), "next": In(1), "start": In(1), "next_command": In(Command),
            "length": In(length_bits), "offset": In(offset_bits), "offset_older": In(offset_bits),
            "stop": In(1), "streaming": In(1), "pushed": In(stream.Signature(word_bits)),
            "running": Out(1), "ended": Out(1), "waiting": Out(1),
            "found": Out(2 + self.index_bits), "inputs": Out(signed(hw.input_bits)),
            "targets": Out(signed(hw.target_bits)), "fetch": Out(Command), "masked_en": Out(2), "masked": Out(1),
            "order_w_en": In(1), "lines_w_en": In(1), "w_addr": In(max(self.bits, self.order_bits)), "w_data": In(32),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.data = data = SampleMemory(
            line=self.hw.data_width, depth=self.hw.depths.data, latency=lined(self.hw))
        m.submodules.fetch = fetch = Fetch(self.hw, offset_bits=self.offset_bits)
        wiring.connect(m, fetch.port, data.port)
        m.submodules.words = words = Words(self.index_bits)
        begins = self._begins(m, self._records(m, platform))
        with m.If(self.start):
            m.d.sync += self.fetch.eq(self.next_command)
        if self.hw.paired:
            begins = self._held(m, begins, words.running)
        m.d.comb += [
            words.start.eq(self.start), words.length.eq(self.length), words.there.eq(fetch.there),
            words.stop.eq(self.stop), self.running.eq(words.running), self.ended.eq(words.ended),
            fetch.start.eq(self.start), fetch.target.eq(self.fetch.target), fetch.drop.eq(self.go),
            *(port.eq(x) for port, x in zip((fetch.offset, fetch.record_a, fetch.record_b), begins, strict=True)),
            fetch.wanted.eq(words.running), fetch.second.eq(words.second), fetch.last.eq(words.last),
            fetch.streaming.eq(self.streaming), fetch.pushed.payload.eq(self.pushed.payload),
            fetch.pushed.valid.eq(self.pushed.valid), self.pushed.ready.eq(fetch.pushed.ready),
            self.waiting.eq(words.running & fetch.waiting),
            self.inputs.eq(fetch.inputs), self.targets.eq(fetch.targets),
            self.found.eq(delay(m, Cat(fetch.taken, words.second, words.index), picked(self.hw), "found")),
            data.w_en.eq(self.lines_w_en), data.w_addr.eq(self.w_addr), data.w_data.eq(self.w_data),
        ]
        return m

    def _records(self, m: Module, platform) -> list:
        """Lines where the records of the pair begin."""
        late = fetched(self.hw)
        m.submodules.order = order = make_bank(platform, latency=late, width=self.bits + 1, depth=self.hw.depths.order)
        place, records = Signal(self.order_bits + 1), [Signal(self.bits, name=f"record_{x}") for x in "ab"]
        again = delay(m, self.next, 1, "next")
        taken = delay(m, again, late - 1, "next_a"), delay(m, again, late, "next_b")
        with m.If(self.go):
            m.d.sync += place.eq(self.first)
        with m.Elif(self.next | again):
            m.d.sync += place.eq(place + 1)
        for index in range(2):
            with m.If(taken[index]):
                m.d.sync += records[index].eq(order.r_data)
        m.d.comb += [
            order.r_en.eq(1), order.r_addr.eq(place), self.masked_en.eq(Cat(taken)),
            self.masked.eq(order.r_data[-1]), order.w_en.eq(self.order_w_en), order.w_addr.eq(self.w_addr),
            order.w_data.eq(self.w_data),
        ]
        return records

    def _begins(self, m: Module, records: list) -> list:
        """Offset and lines of the records that the next FETCH wants."""
        if not self.hw.paired:
            return [self.offset, *records]
        before, of = [Signal.like(x, name=f"older_{x.name}") for x in records], older(self.next_command)
        with m.If(self.next):
            m.d.sync += [x.eq(y) for x, y in zip(before, records, strict=True)]
        return [Mux(of, x, y) for x, y in zip((self.offset_older, *before), (self.offset, *records), strict=True)]

    def _held(self, m: Module, begins: list, running) -> list:
        """They, as they were at the start while a FETCH is ``running``: other words may follow at once."""
        held = []
        for index, value in enumerate(begins):
            kept = Signal.like(value, name=f"begin_{index}")
            with m.If(self.start):
                m.d.sync += kept.eq(value)
            held.append(Mux(running, kept, value))
        return held
