"""The sequencer: three cycles per program word, more after a jump and before a sweep; counted loops.
It reads ahead of the sweep that runs and waits where the `Scoreboard` says so; the next sweep starts in the last cycle
of the one before, which it is told a cycle earlier."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.design import Hardware
from echolith.compiler.formats import field
from echolith.compiler.isa import LOOP_BITS, TILE_ROWS, VARIANT, Opcode, Setting
from echolith.compiler.timing import fetched
from echolith.rtl.command import Command, beside
from echolith.rtl.memory import make_bank

__all__ = ["STACK", "Sequencer", "offset_bits", "setting_bits"]

STACK = 3  # nested loops: pairs, rows, substeps


# Settings of general hardware, and the memory whose places they are.
_OFFSETS = {Setting.SOURCE: "units", Setting.FIRST: "units", Setting.SECOND: "units", Setting.PLACE: "units",
            Setting.TILE: "tiles", Setting.DRIVE: "rows", Setting.INTO: "tiles", Setting.REPEAT: "units"}


def setting_bits(hw: Hardware) -> dict[Setting, int]:
    """Bits of every setting that this hardware has."""
    d = hw.depths
    bits = {name: (count - 1).bit_length() + 1 for name, count in
            (("weights", d.weights), ("units", d.units), ("tiles", d.tiles), ("rows", d.rows))}
    sizes = {Setting.BASE: bits["weights"], Setting.COLUMNS: bits["units"], Setting.TILES: bits["tiles"],
             Setting.ROWS: TILE_ROWS + (hw.lanes - 1).bit_length() if hw.paired else bits["rows"],
             Setting.LENGTH: max(bits["weights"], bits["units"]), Setting.RATE: 24}
    if hw.overlap:
        sizes[Setting.STRIDE] = bits["weights"]
    if hw.paired:
        sizes[Setting.EXTRA] = bits["units"]
    if not hw.general:
        return sizes
    # An index has a bit less than a count.
    offsets = {s: bits[_OFFSETS[s]] - 1 for s in _OFFSETS if s != Setting.REPEAT or hw.repeat}
    if d.index:  # operands may be places in the index memory
        offsets |= {s: max(offsets[s], (d.index - 1).bit_length()) for s in (Setting.FIRST, Setting.SECOND)}
    return sizes | offsets


def offset_bits(hw: Hardware) -> int:
    """Bits of a place inside a record, which may take the whole sample memory."""
    unit = min(field(bits, hw.data_width) for bits in (hw.input_bits, hw.target_bits))
    return (hw.depths.data * (hw.data_width // unit) - 1).bit_length()


class Sequencer(wiring.Component):
    """Runs the program from ``entry`` until HALT.

    Members
    -------
    go, stop, entry, pairs, guard : In
        ``stop`` may come at any time; a run ends once all is drained. ``guard``: a flag is up, GUARD jumps.
    busy : Out
    opcode, command : Out
        The sweep started last, held until the next; `Hardware.paired`: but for what runs `command.beside` it.
    start, apart : Out
        Strobe: the sweep in ``next_opcode`` and ``next_command`` begins with the next cycle; whether it is one that
        runs `command.beside` the sweep engine.
    starts, walks : Out
        ``start`` of each opcode, one bit each; that of a sweep which is not `command.beside` the sweep engine.
    stopping : Out
        A stop has come and the run is not over yet: sweeps end early.
    next_opcode, next_command : Out
        The word that waits to be carried out.
    doing, waiting : Out
        One bit for each opcode: of the sweep started last, and of the word that waits.
    ready, still, quiet, idle : In
        It may start, if it is a sweep, as far as results on their way are concerned; settings may change; the next pair
        may be taken; nothing is on its way.
    free : In
        The sweep engine stands still in the cycle after the next.
    next : Out
        Strobe: take the next pair of the order memory (`fetched` + 1 more cycles).
    setting_* : Out
    offset, offset_older : Out
        Place inside the samples' records, and inside those before the last NEXT; the latter if `Hardware.paired`.
    program_w_*, program_r_* : the program memory; reads while idle, valid a cycle later
    """

    def __init__(self, hw: Hardware):
        self.hw = hw
        self.pc_bits = pc = (hw.depths.program - 1).bit_length()
        self.offset_bits = offset_bits(hw)
        self.settings = setting_bits(hw)
        super().__init__({
            "go": In(1), "stop": In(1), "entry": In(pc), "pairs": In(LOOP_BITS), "guard": In(1), "busy": Out(1),
            "opcode": Out(4), "command": Out(Command), "start": Out(1), "apart": Out(1),
            "starts": Out(16), "walks": Out(1), "stopping": Out(1),
            "next_opcode": Out(4), "next_command": Out(Command), "doing": Out(16), "waiting": Out(16),
            "ready": In(1), "still": In(1), "quiet": In(1), "idle": In(1), "free": In(1),
            "next": Out(1),
            **{f"setting_{s.name.lower()}": Out(bits) for s, bits in self.settings.items()},
            "offset": Out(self.offset_bits), **({"offset_older": Out(self.offset_bits)} if hw.paired else {}),
            "program_w_en": In(1), "program_addr": In(pc), "program_w_data": In(32), "program_r_data": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.program = program = make_bank(
            platform, latency=fetched(self.hw), width=32, depth=self.hw.depths.program)
        self._left = [Signal(LOOP_BITS, name=f"left_{i}") for i in range(STACK)]
        pc, quit = Signal(self.pc_bits), Signal()
        ready = Signal()  # a sweep waits for the sweep engine only: results on their way get fewer
        self._final = Signal()  # the innermost loop's last round
        # The memory's output stays until the word is carried out; a register makes it faster.
        word = Signal(32, reset_less=True) if self.hw.overlap else program.r_data
        m.d.comb += [
            program.r_addr.eq(Mux(self.busy, pc, self.program_addr)), program.r_en.eq(1),
            program.w_addr.eq(self.program_addr), program.w_data.eq(self.program_w_data),
            program.w_en.eq(self.program_w_en), self.program_r_data.eq(program.r_data),
            self.next_opcode.eq(word[28:]), self.next_command.eq(word[:28]),
        ]
        self._sets = Signal(16)  # the setting that a SET in ``word`` writes
        early = m.d.sync if self.hw.overlap else m.d.comb  # registers for what a word means, or gates behind it
        early += self._sets.eq(1 << word[24:28])
        m.d.sync += [ready.eq(0), self.start.eq(0), self.starts.eq(0), self.walks.eq(0),
                     self.apart.eq(beside(self.hw, self.next_opcode)),
                     self._final.eq(self._left[0] == 1)]
        may = self.ready & ~self.stopping
        kinds, needs = self.waiting, Signal(3)
        if not self.hw.overlap:
            m.d.comb += [kinds.eq(1 << word[28:]), needs.eq(self._needs(word))]
        does = Signal(16)  # the word that is carried out, no sweep: one bit for each opcode
        early += does.eq(0)
        jump = self._execute(m, does, word)
        with m.If(jump):
            m.d.sync += pc.eq(word[:24])
        with m.If(self.stop):
            m.d.sync += self.stopping.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += self.stopping.eq(0)
                with m.If(self.go):
                    m.d.sync += [pc.eq(self.entry), self.busy.eq(1), self.offset.eq(0)]
                    # A program that leaves an offset alone means zero, whatever the last one did.
                    m.d.sync += [getattr(self, f"setting_{s.name.lower()}").eq(0)
                                 for s in _OFFSETS if s in self.settings]
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.next = "FETCH_2" if self.hw.overlap else "READ"
            if self.hw.overlap:
                with m.State("FETCH_2"):
                    m.next = "READ"
            with m.State("READ"):
                if self.hw.overlap:
                    m.d.sync += [word.eq(program.r_data), self.waiting.eq(1 << program.r_data[28:]), pc.eq(pc + 1),
                                 needs.eq(self._needs(program.r_data))]
                m.next = "DECODE"
            with m.State("DECODE"):
                go = Mux(self.stopping, self.idle, ~(needs & ~Cat(self.idle, self.quiet, self.still)).any())
                m.d.sync += quit.eq(self.stopping)
                with m.If(word[31]):  # from FETCH on
                    if not self.hw.overlap:
                        m.d.sync += ready.eq(may)
                    m.next = "CONSIDER" if self.hw.overlap else "WAIT"
                with m.Elif(go):
                    if self.hw.overlap:
                        m.d.sync += does.eq(kinds)
                    else:
                        m.d.sync += pc.eq(pc + 1)
                    m.next = "EXECUTE"
            with m.State("CONSIDER"):  # the scoreboard compares what is on its way with the word
                m.d.sync += ready.eq(may)
                m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(self.start):
                    with m.If(~self.apart):
                        m.d.sync += [self.command.eq(word[:28]), self.opcode.eq(word[28:]), self.doing.eq(self.waiting)]
                    if not self.hw.overlap:  # the word is the memory's output
                        m.d.sync += pc.eq(pc + 1)
                    m.next = "READ"
                with m.Else():
                    m.d.sync += ready.eq(may)
                    with m.If(ready & (self.free | self.apart)):
                        m.d.sync += [self.start.eq(1), self.starts.eq(self.waiting), self.walks.eq(~self.apart)]
                    with m.If(self.stopping & self.idle & ~ready):
                        m.d.sync += self.busy.eq(0)
                        m.next = "IDLE"
            with m.State("EXECUTE"):
                if not self.hw.overlap:
                    m.d.comb += does.eq(kinds)
                m.next = "READ"
                with m.If(does[Opcode.NEXT]):
                    m.next = "NEXT"
                with m.If(jump):
                    m.next = "FETCH"
                with m.If(quit | does[Opcode.HALT]):
                    m.d.sync += self.busy.eq(0)
                    m.next = "IDLE"
            for state, following in (("NEXT", "NEXT_2"), *((("NEXT_2", "NEXT_3"),) if self.hw.overlap else ())):
                with m.State(state):
                    m.next = following
            with m.State("NEXT_3" if self.hw.overlap else "NEXT_2"):
                m.d.sync += self.offset.eq(0)
                if self.hw.paired:
                    m.d.sync += self.offset_older.eq(self.offset)
                m.next = "READ"
        return m

    def _needs(self, word):
        """What a word that is no sweep waits for: idle, quiet, still. With `Hardware.paired` all settings but RATE are
        taken at the start of what needs them."""
        opcode, paired = word[28:], Const(int(self.hw.paired))
        taken = paired & (word[24:28] != Setting.RATE)
        return Cat((opcode == Opcode.HALT) | ((opcode == Opcode.GUARD) & ~(paired & word[VARIANT])),
                   opcode == Opcode.NEXT, ((opcode == Opcode.SET) & ~taken) | ((opcode == Opcode.ROW) & ~paired))

    def _execute(self, m: Module, does, word):
        """What is not a sweep; returns whether it jumps."""
        value, variant, paired = word[:24], word[VARIANT], self.hw.paired
        m.d.comb += self.next.eq(does[Opcode.NEXT])
        with m.If(does[Opcode.ROW]):
            if paired:
                with m.If(variant):
                    m.d.sync += self.offset_older.eq(self.offset_older + value)
            with m.If(~variant if paired else 1):
                m.d.sync += self.offset.eq(self.offset + value)
        for setting in self.settings:
            with m.If(does[Opcode.SET] & self._sets[setting]):
                m.d.sync += getattr(self, f"setting_{setting.name.lower()}").eq(value)
        again = self._loops(m, does, value)
        return again | (does[Opcode.GUARD] & (Mux(variant, self._final, self.guard) if paired else self.guard))

    def _loops(self, m: Module, does, value):
        """The innermost loop's rounds on top; END brings the address it goes back to. Returns whether it does."""
        left, again = self._left, does[Opcode.END] & ~self._final
        with m.If(does[Opcode.LOOP] | does[Opcode.PAIRS]):
            m.d.sync += [left[0].eq(Mux(does[Opcode.PAIRS], self.pairs, value)),
                         *(below.eq(above) for above, below in zip(left, left[1:], strict=False))]
        with m.Elif(does[Opcode.END]):
            with m.If(self._final):
                m.d.sync += [above.eq(below) for above, below in zip(left, left[1:], strict=False)]
            with m.Else():
                m.d.sync += left[0].eq(left[0] - 1)
        return again
