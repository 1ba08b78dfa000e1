"""What changes parameters: the update of all words, and what is done to all gradient words."""

from echolith.compiler.assembler import Assembler
from echolith.compiler.isa import Opcode, Setting, UpdateMode, exec_word, loop_word, shrunk

__all__ = ["Updates"]


class Updates(Assembler):
    """Sweeps over the parameters' own words."""

    def update(self) -> None:
        """Check every gradient word, then apply and decay; or clear them all if anything went wrong. Parameters shrink
        before they are told of their gradients."""
        s = self.s
        self.everywhere(UpdateMode.CHECK)
        guard = self.emit(0)
        for name, (block, column, columns) in s.updates.items():
            self.set(Setting.BASE, block.base + column)
            if s.hardware.overlap:
                self.change(Setting.STRIDE, block.stride)
            else:
                self.set(Setting.COLUMNS, block.columns)
            self.set(Setting.TILES, self.tiles(block))
            self.set(Setting.LENGTH, columns)
            self.apply(name)
        self.set(Setting.BASE, 0)
        self.set(Setting.TILES, 1)
        for index, length in enumerate(s.vectors):
            self.set(Setting.LENGTH, length)
            self.apply(f"vector{index}", index + 1)
        self.rates["decay"] = self.set(Setting.RATE, 0)
        self.everywhere(UpdateMode.DECAY)
        self.emit(loop_word(Opcode.HALT))
        self.words[guard] = loop_word(Opcode.GUARD, len(self.words))
        self.entries["clear"] = len(self.words)
        self.set(Setting.RATE, 0)
        self.everywhere(UpdateMode.DECAY)

    def apply(self, name: str, kind: int = 0) -> None:
        """Rates of ``name`` are what the host writes into the program."""
        modes = {shrunk(name): UpdateMode.SHRINK} if self.s.hardware.shrinks else {}
        for key, mode in (modes | {name: UpdateMode.APPLY}).items():
            self.rates[key] = self.set(Setting.RATE, 0)
            self.emit(exec_word(Opcode.UPDATE, dest=mode, kind=kind))

    def everywhere(self, mode: UpdateMode) -> None:
        self.set(Setting.BASE, 0)
        self.set(Setting.TILES, 1)
        self.set(Setting.LENGTH, self.s.used)
        self.emit(exec_word(Opcode.UPDATE, dest=mode))
        for index, length in enumerate(self.s.vectors):
            self.set(Setting.LENGTH, length)
            self.emit(exec_word(Opcode.UPDATE, dest=mode, kind=index + 1))
