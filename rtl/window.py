"""The register window and the two word streams: everything a host can reach, whatever link carries it."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from echolith.compiler.registers import ABI, MAGIC, REGISTERS, Bank, address
from echolith.rtl.pipeline import delay, one_of

__all__ = ["Window"]

_OWN = ("magic", "abi", "hardware", "control", "bank", "pointer")  # not ports


class Window(wiring.Component):
    """32-bit registers, and streams that walk through a memory bank.

    Parameters
    ----------
    hardware_id : int
    wide : tuple of Bank
        Banks whose entries take two stream words.
    index_bits, entry_bits : int
        Of the largest bank and of the widest entry.
    read_cycles : int
        Of the slowest bank.
    far : bool
        Accesses go through registers on their way to the memories, and the bus through some of its own.
    halves : bool
        Order and data may be written, and results read, while the core is busy.

    Members
    -------
    bus_* : In, Out
        The register window; ``bus_r_data`` is valid `READ_CYCLES` after ``bus_r_stb``, as long as the address stands.
    push, pull : the word streams; what is pushed in the cycle after a write may go where it went before
    go, stop, streaming : Out
    <register> : values of w and rw registers out, of r registers in
    host_en : Out
        The core is idle and the bank below is being accessed.
    host_index, host_bank, host_half, host_r_en, host_w_en, host_data : Out
        Entry, bank and write; ``host_data`` has both halves of a wide entry. ``host_w_en`` strobes on the last half.
    host_read : In
        The entry, ``read_cycles`` after ``host_r_en``.
    stream : Out
        Words pushed to `Bank.STREAM`.
    """

    def __init__(self, *, hardware_id: int, wide: tuple[Bank, ...], index_bits: int, entry_bits: int,
                 read_cycles: int, far: bool, halves: bool = False):
        self.hardware_id, self.wide, self.halves = hardware_id, wide, halves
        self.index_bits, self.entry_bits, self.read_cycles, self.far = index_bits, entry_bits, read_cycles, far
        ports = {r.name: (In if r.access == "r" else Out)(r.width) for r in REGISTERS if r.name not in _OWN}
        super().__init__({
            "bus_addr": In(8), "bus_w_data": In(32), "bus_w_stb": In(1), "bus_r_stb": In(1), "bus_r_data": Out(32),
            "push": In(stream.Signature(32)), "pull": Out(stream.Signature(32)),
            "go": Out(1), "stop": Out(1), "streaming": Out(1), "busy": In(1), **ports,
            "host_index": Out(index_bits), "host_bank": Out(4), "host_en": Out(1), "host_r_en": Out(1),
            "host_w_en": Out(1), "host_data": Out(entry_bits), "host_read": In(entry_bits),
            "stream": Out(stream.Signature(32)),
        })

    def elaborate(self, platform):
        m = Module()
        bank, pointer = Signal(4), Signal(self.index_bits + bool(self.wide))
        self._addr, self._w_data, self._w_stb = (
            delay(m, getattr(self, f"bus_{name}"), int(self.far), name) for name in ("addr", "w_data", "w_stb"))
        control = self._w_stb & (self._addr == address("control"))
        m.d.sync += [self.go.eq(control & self._w_data[0]), self.stop.eq(control & self._w_data[1])]
        with m.If(control & self._w_data[0]):
            m.d.sync += self.streaming.eq(self._w_data[2])
        self._read(m)
        moved = Signal()
        self._streams(m, bank, pointer, moved)
        m.d.sync += moved.eq(0)
        with m.If(self._w_stb):
            with m.Switch(self._addr):
                for index, register in enumerate(REGISTERS):
                    if register.access != "r" and register.name != "control":
                        target = {"bank": bank, "pointer": pointer}.get(register.name)
                        with m.Case(index):
                            m.d.sync += (getattr(self, register.name) if target is None else target).eq(self._w_data)
                            m.d.sync += moved.eq(register.name in ("bank", "pointer"))
        return m

    def _read(self, m: Module) -> None:
        """Registers in groups that share the upper bits of their address, then one of those."""
        fixed, low = {"magic": MAGIC, "abi": ABI, "hardware": self.hardware_id}, 2
        groups = [Signal(32, name=f"group_{i}") for i in range((len(REGISTERS) - 1 >> low) + 1)]
        for index, register in enumerate(REGISTERS):
            if register.access != "w":
                value = fixed.get(register.name)
                with m.If(self._addr[:low] == index % (1 << low)):
                    m.d.comb += groups[index >> low].eq(getattr(self, register.name) if value is None else value)
        chosen = [delay(m, self._addr[low:] == index, int(self.far), "chosen") for index in range(len(groups))]
        groups = [delay(m, group, int(self.far), "group") for group in groups]
        m.d.sync += self.bus_r_data.eq(one_of(zip(chosen, groups, strict=True)))

    def _streams(self, m: Module, bank, pointer, moved) -> None:
        """Push writes one entry per word (wide banks: per two); pull reads ahead by one word."""
        wide = Signal()
        low = Signal(32)
        streamed, kept, done, busy = (Signal(name=name) for name in ("streamed", "kept", "done", "blocked"))
        with m.If(self._w_stb & (self._addr == address("bank"))):  # beside the bank itself
            for flag, banks in ((wide, self.wide), (streamed, (Bank.STREAM,)),
                                (kept, (Bank.ORDER, Bank.DATA) if self.halves else ()),
                                (done, (Bank.RESULTS,) if self.halves else ())):
                m.d.sync += flag.eq(Cat(self._w_data[:len(bank)] == b for b in banks).any())
        running = delay(m, self.busy, int(self.far), "running")
        open_ = ~running | kept  # what is stored does not wait for what is streamed
        stored = self.push.valid & open_ & ~streamed
        access = {
            "bank": bank, "index": Mux(wide, pointer >> 1, pointer), "en": ~running,
            "data": Mux(wide, Cat(low, self.push.payload), self.push.payload),
            "w_en": stored & (~wide | pointer[0]),
        }
        m.d.comb += [getattr(self, f"host_{name}").eq(delay(m, value, int(self.far), f"host_{name}"))
                     for name, value in access.items()]
        m.d.comb += busy.eq(running & ~done)
        m.d.comb += [
            self.stream.payload.eq(self.push.payload), self.stream.valid.eq(self.push.valid & streamed),
            self.push.ready.eq(Mux(streamed, self.stream.ready, open_)),
        ]
        with m.If(stored):
            m.d.sync += [low.eq(self.push.payload), pointer.eq(pointer + 1)]
        with m.FSM():
            with m.State("READ"):
                m.d.comb += self.host_r_en.eq(~busy & ~stored & ~streamed)
                with m.If(self.host_r_en):
                    m.next = "WAIT_0"
            for cycle in range(self.read_cycles):
                with m.State(f"WAIT_{cycle}"):
                    m.next = f"WAIT_{cycle + 1}" if cycle + 1 < self.read_cycles else "VALID"
                    if cycle + 1 == self.read_cycles:
                        half = self.host_read.word_select(wide & pointer[0], 32)
                        m.d.sync += self.pull.payload.eq(half)
                    with m.If(moved | stored | busy):
                        m.next = "READ"
            with m.State("VALID"):
                m.d.comb += self.pull.valid.eq(1)
                with m.If(self.pull.ready):
                    m.d.sync += pointer.eq(pointer + 1)
                with m.If(self.pull.ready | moved | stored | busy):
                    m.next = "READ"
