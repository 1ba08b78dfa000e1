"""The assembler of programs: words, loops, entries, settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from echolith.compiler.design import Block, Dynamics, Hardware
from echolith.compiler.errors import CompileError
from echolith.compiler.isa import LOOP_BITS, Opcode, Setting, loop_word, rows_value, set_word
from echolith.compiler.kinetic import Drift
from echolith.compiler.record import Record
from echolith.compiler.sweep import Sweep

__all__ = ["Assembler", "Schedule"]


@dataclass(frozen=True)
class Schedule:
    """What the program generator needs to know about a network."""

    hardware: Hardware
    dynamics: Dynamics
    units: int
    inputs: int
    outputs: int
    blocks: dict[str, Block]
    sweeps: tuple[Sweep, ...]  # the force
    levels: tuple[Sweep, ...]  # of a softmax, before every cost
    drifts: tuple[Drift, ...]
    drives: dict[str, int]  # blocks of kept drives -> their first row
    updates: dict[str, tuple[Block, int, int]]  # rate name -> block, first column, columns
    vectors: tuple[int, ...]  # lengths of the learned vector parameters
    used: int  # words per lane
    record: Record
    reads: tuple[Sweep, ...] = ()  # before every read-out
    backs: tuple[Sweep, ...] = ()  # behind its cost
    source: int = 0  # first element of what the readout block is applied to
    counted: bool = False  # see `design.Rule`
    feeds: tuple[Sweep, ...] = ()  # of a stack, see `design.Design`
    copies: tuple[Sweep, ...] = ()
    errors: tuple[Sweep, ...] = ()
    lower: int = 0


class Assembler:
    """Program words, and what the settings are at the place that is written."""

    def __init__(self, schedule: Schedule):
        self.s = schedule
        self.words: list[int] = []
        self.entries: dict[str, int] = {}
        self.rates: dict[str, int] = {}
        self.block = ""  # that the sweeps point at
        self.known: dict[Setting, int] = {}  # settings that need not be repeated here
        self._guards: list[int] = []  # places of this entry from which a flag leads to its end

    def emit(self, word: int) -> int:
        self.words.append(word)
        return len(self.words) - 1

    def set(self, setting: Setting, value: int) -> int:
        self.known[setting] = value
        return self.emit(set_word(setting, value))

    def place(self, **places: int) -> None:
        """Settings of offsets and repeats, where they are not so already."""
        if self.s.hardware.general:
            if not self.s.hardware.repeat:
                places.pop("repeat", None)
            for name, value in places.items():
                self.change(Setting[name.upper()], value)

    @contextmanager
    def loop(self, count: int | None) -> Iterator[None]:
        """Repeat what is emitted inside: ``count`` times, or once per pair if None."""
        if count is not None and count >= 1 << LOOP_BITS:
            raise CompileError(f"rows and substeps must be below {1 << LOOP_BITS}, not {count}")
        first = self.emit(loop_word(Opcode.PAIRS) if count is None else loop_word(Opcode.LOOP, count)) + 1
        self.known.clear()  # another round may come with other settings
        yield
        self.emit(loop_word(Opcode.END, first))
        self.known.clear()

    def use(self, name: str) -> None:
        """Point the sweeps at a block."""
        self.block = name
        block = self.s.blocks[name]
        extra = name in self.s.drives and self.s.hardware.paired  # its columns are those of the inputs
        self.point(block, 0 if extra else block.columns, block.columns if extra else 0)

    def point(self, block: Block, columns: int, extra: int) -> None:
        self.change(Setting.BASE, block.base)
        self.change(Setting.COLUMNS, columns)
        self.change(Setting.TILES, self.tiles(block))
        self.change(Setting.ROWS, self.rows(block))
        if self.s.hardware.paired:
            self.change(Setting.EXTRA, extra)
        if self.s.hardware.overlap:
            self.change(Setting.STRIDE, block.stride)

    def rows(self, block: Block) -> int:
        return rows_value(block.rows, self.s.hardware.tile_rows(block.rows))

    def tiles(self, block: Block) -> int:
        return -(-block.rows // self.s.hardware.lanes)

    def change(self, setting: Setting, value: int) -> None:
        """Set it, where it is not so already."""
        if self.known.get(setting) != value:
            self.set(setting, value)

    @contextmanager
    def entry(self, name: str) -> Iterator[None]:
        self.entries[name] = len(self.words)
        self.known.clear()
        yield
        while self._guards:
            self.words[self._guards.pop()] = loop_word(Opcode.GUARD, len(self.words))
        self.emit(loop_word(Opcode.HALT))

    def guard(self) -> None:
        """The run ends here if a flag is up, and leaves the states as they are."""
        self._guards.append(self.emit(0))
