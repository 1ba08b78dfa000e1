"""What a chip must answer, without a chip: the shipping host talks to an emulation of the register window.

Every word in it comes from the integer model, every cycle count from the predictor. The conversation is kept as a
script of steps, which a bench replays on the RTL over any link. A step is a list:

    ["note", text]                what follows, for messages
    ["write", address, words]     consecutive registers
    ["read", address, words]      the same, with the values that must come
    ["push", words]               into the bank last selected
    ["pull", words]               from it, with the values that must come
    ["wait"]                      until the chip is idle

Words are one string, eight hexadecimal digits each; ``........`` may have any value. Bits above an entry's width read
as 0.
"""

import numpy as np

from echolith.compiler.cut import guard
from echolith.compiler.cycles import cycles
from echolith.compiler.design import Design
from echolith.compiler.isa import Opcode, loop_word, shrunk
from echolith.compiler.registers import ABI, ERRORS, MAGIC, REGISTERS, Bank, Flag
from echolith.host.chip import ChipDevice
from echolith.host.rates import encode
from echolith.sim.arith import gradient_width, wrap
from echolith.sim.model import IntegerModel
from echolith.sim.state import Outcome
from echolith.sim.weights import Words, from_values

__all__ = ["Emulation", "Step", "extreme", "script"]

Step = list[str | int]
_ANY = "." * 8


def _hex(words) -> str:
    return "".join(f"{int(word) & 0xFFFFFFFF:08x}" for word in words)


class Emulation:
    """Stands in for a `host.link.Link` to a chip that holds ``design``'s hardware and has just been reset.

    Attributes
    ----------
    steps : list
        The conversation so far.
    """

    def __init__(self, design: Design):
        self.design, self.hw, self.steps = design, design.hardware, []
        self.model = IntegerModel(design)
        self._leading = True  # the register called so is defined: without targets it is not
        self.registers = {r.name: 0 for r in REGISTERS}
        self.registers.update(magic=MAGIC, abi=ABI, hardware=self.hw.hardware_id)
        hw, d = self.hw, self.hw.depths
        lanes, vectors = hw.lanes * d.weights, len(hw.vectors) * d.units
        self.memory = {bank: np.zeros(entries, np.int64) for bank, entries in (
            (Bank.PROGRAM, d.program), (Bank.TABLES, hw.tables << hw.segments + 1), (Bank.ORDER, d.order),
            (Bank.DATA, d.data), (Bank.WEIGHTS, lanes), (Bank.GRADIENTS, lanes), (Bank.VECTORS, vectors),
            (Bank.VECTOR_GRADIENTS, vectors), (Bank.POSITIONS, 2 * hw.contexts * d.units), (Bank.MOMENTA, 8 * d.units),
            (Bank.RESULTS, d.results), (Bank.INDEX, d.index))}

    # -- a Link's methods ------------------------------------------------------------------------------------------

    def read(self, addr: int, count: int = 1) -> list[int]:
        names = [r.name for r in REGISTERS[addr:addr + count]]
        values = [self.registers[name] for name in names]
        text = [_ANY if name == "leading" and not self._leading else _hex([value])
                for name, value in zip(names, values, strict=True)]
        self.steps.append(["wait"] if names == ["status"] else ["read", addr, "".join(text)])
        return values

    def write(self, addr: int, *words: int) -> None:
        self.steps.append(["write", addr, _hex(words)])
        for register, word in zip(REGISTERS[addr:addr + len(words)], words, strict=True):
            if register.name == "control":
                self._go()
            else:
                self.registers[register.name] = int(word)

    def push(self, words: np.ndarray, *, stall: float = 0.0) -> None:
        self.steps.append(["push", _hex(words)])
        memory, start, wide = self._walk(len(words))
        words = words.astype(np.int64)
        if wide:
            words = words[0::2] | words[1::2] << 32
        memory[start:start + len(words)] = wrap(words, self._bits)

    def pull(self, count: int, rewind=None) -> np.ndarray:
        memory, start, wide = self._walk(count)
        if wide:
            entries = memory[start:start + count // 2] & (1 << self._bits) - 1
            words = np.stack([entries & 0xFFFFFFFF, entries >> 32], axis=1).reshape(-1)
        else:
            words = memory[start:start + count] & (1 << self._bits) - 1
        self.steps.append(["pull", _hex(words)])
        return words.astype(np.uint32)

    def rest(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass

    def note(self, text: str) -> None:
        self.steps.append(["note", text])

    # -- memory ----------------------------------------------------------------------------------------------------

    def _walk(self, words: int) -> tuple[np.ndarray, int, bool]:
        """The bank selected, the first entry, whether entries take two words; moves the pointer on."""
        bank, start = Bank(self.registers["bank"]), self.registers["pointer"]
        masters = (Bank.WEIGHTS, Bank.GRADIENTS, Bank.VECTORS, Bank.VECTOR_GRADIENTS)
        wide = bank in masters and 2 * self.hw.width > 32
        self.registers["pointer"] += words
        return self.memory[bank], start // 2 if wide else start, wide

    @property
    def _bits(self) -> int:
        """Bits of an entry of the bank selected."""
        w = self.hw.width
        bits = {Bank.PROGRAM: 32, Bank.ORDER: 1 + (self.hw.depths.data - 1).bit_length(),
                Bank.DATA: self.hw.data_width, Bank.WEIGHTS: 2 * w, Bank.VECTORS: 2 * w,
                Bank.GRADIENTS: gradient_width(w), Bank.VECTOR_GRADIENTS: gradient_width(w)}
        return bits.get(Bank(self.registers["bank"]), w)

    def _lanes(self, bank: Bank, words: dict[str, np.ndarray], store: bool) -> None:
        """Blocks from the lanes' memory, or to it; see `Block`."""
        image = self.memory[bank].reshape(self.hw.lanes, -1)
        for block in self.design.blocks:
            for row in range(block.rows):
                tile, lane = divmod(row, self.hw.tile_rows(block.rows))
                start = block.base + tile * block.stride
                here = image[lane, start:start + block.columns]
                if store:
                    here[:] = words[block.name][row]
                else:
                    words[block.name][row] = here

    def _vectors(self, bank: Bank, words: list[np.ndarray], store: bool) -> None:
        for word, image in zip(words, self.memory[bank].reshape(-1, self.hw.depths.units), strict=True):
            here = image[:len(word)]
            if store:
                here[:] = word
            else:
                word[:] = here

    def _exchange(self, store: bool) -> None:
        """All weights and gradients from the memories to the model, or back."""
        model = self.model
        self._lanes(Bank.WEIGHTS, model.masters, store)
        self._lanes(Bank.GRADIENTS, model.gradients, store)
        self._vectors(Bank.VECTORS, model.vectors, store)
        self._vectors(Bank.VECTOR_GRADIENTS, model.vector_gradients, store)

    # -- runs ------------------------------------------------------------------------------------------------------

    def _go(self) -> None:
        program = tuple(int(word) & 0xFFFFFFFF for word in self.memory[Bank.PROGRAM])
        start, pairs = self.registers["entry"], self.registers["count"]
        entry = next(name for name, place in self.design.entries.items() if place == start)
        self._exchange(store=False)
        out = self._entry(entry, program, 2 * pairs)
        self._exchange(store=True)
        flags = out.wrapped << Flag.WRAPPED | out.echo << Flag.ECHO | out.gradient << Flag.GRADIENT
        self.registers.update(
            flags=flags | out.large << Flag.LARGE, stalls=0, response=out.response, leading=out.leading,
            saturated=out.saturated, cycles=self._cycles(program, start, pairs, flags & ERRORS != 0))
        self._leading = entry != "predict"

    def _cycles(self, program: tuple[int, ...], start: int, pairs: int, flagged: bool) -> int:
        """As predicted; with a flag up a run of one pair, or an update, goes on where its GUARD says."""
        place = guard(program, start) if flagged else None
        if place is None:
            return cycles(program, start, self.hw, pairs)
        halted = (*program[:place], loop_word(Opcode.HALT), *program[place + 1:])
        return cycles(halted, start, self.hw) + cycles(program, program[place] & 0xFFFFFF, self.hw)

    def _entry(self, entry: str, program: tuple[int, ...], samples: int) -> Outcome:
        model = self.model
        if entry == "clear":
            model.clear()
            return Outcome()
        if entry == "update":
            return model.update({name: (wrap(program[index], 22), program[index] >> 22 & 3)
                                 for name, index in self.design.rates.items()})
        x, target, masked = self._records(samples)
        if entry == "echo":
            return model.echo(x)[1]
        if entry == "learn" and self.design.rule.counted:
            out = model.echo(x)[1]
            if out.wrapped or out.echo:  # which ends the run before it learns
                return out
        y, out = model.predict(x)
        if entry in ("learn", "unchecked"):
            model.response, model.gain = self.registers["range"], self.registers["gain"]
            y[~masked], out = model.learn(x[~masked], target[~masked], entry == "learn")
        pairs = y.reshape(-1, 2, *y.shape[1:]).transpose(0, 2, 3, 1)
        into = self.registers["into"]
        self.memory[Bank.RESULTS][into:into + y.size] = pairs.reshape(-1)
        return out

    def _records(self, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, targets and masks of the samples in the order memory."""
        d, bits = self.design, (self.hw.depths.data - 1).bit_length()
        first = self.registers["first"]
        places = self.memory[Bank.ORDER][first:first + samples] & (2 << bits) - 1
        base = (places & (1 << bits) - 1)[:, None]
        lines = self.memory[Bank.DATA][base + np.arange(d.record.lines)] & (1 << self.hw.data_width) - 1
        return (*d.record.unpack(lines), places >> bits == 1)


def script(design: Design, samples: int = 3, seed: int = 0) -> list[Step]:
    """A session: load, predict, return, and for learning hardware two batches with an update between them.

    ``samples`` random ones within a quarter of the input format; an odd number exercises the mask.
    """
    x, target = _samples(design, samples, seed)
    link = Emulation(design)
    link.note("identify, load program, tables and zeros")
    chip = ChipDevice(design, link)  # type: ignore[arg-type]
    link.note("write the weights")
    chip.write(from_values(design, design.values))
    link.note("read the weights")
    chip.read()
    runs = [("predict", 0), ("echo", 0), *[(entry, gain) for entry in ("learn", "unchecked")
                                                       if entry in design.entries for gain in (0, 2)]]
    for entry, gain in runs:
        link.note(f"{entry} {samples} samples, gain {gain}")
        chip.gain = gain
        chip.run(entry, x, target)
        if entry in ("learn", "unchecked"):
            _update(chip, link)
    if design.hardware.learn:
        link.note("write huge weights, so that sums clip and states wrap")
        chip.write(extreme(design, seed))
        link.note("learn a pair with huge weights")
        chip.run("learn", x[:2], target[:2])
        link.note("read the gradients after huge weights, put one near wrapping")
        chip.write_gradients(_crowded(design, chip.read_gradients()))
        _update(chip, link)
    return link.steps


def _crowded(design: Design, words: Words) -> Words:
    """The gradient words with one that must stop the update."""
    name = design.blocks[-1].name
    words[name][-1, -1] = 1 << gradient_width(design.hardware.width) - 2
    return words


def extreme(design: Design, seed: int) -> Words:
    """Master words so large that sums clip and states wrap: the upper half of the format, one sign per column."""
    generator = np.random.default_rng(seed)
    limit = 1 << (2 * design.hardware.width - 1)
    shapes = {b.name: (b.rows, b.columns) for b in design.blocks}
    shapes |= {f"vector{i}": (v.length,) for i, v in enumerate(design.vectors)}
    return {name: generator.integers(limit // 2, limit, shape) * generator.choice([-1, 1], shape[-1])
            for name, shape in shapes.items()}


def _update(chip: ChipDevice, link: Emulation) -> None:
    link.note("read the gradients")
    chip.read_gradients()
    link.note("update")
    width = chip.hw.width
    rates = {name: encode((-1) ** i * (i + 3) / 300 * (2.0 ** (width - 3) if name.startswith(shrunk("")) else 1), width)
             for i, name in enumerate(chip.design.rates)}
    chip.update({**rates, "decay": encode(0.85, width)})
    link.note("read the weights after update")
    chip.read()
    link.note("read the gradients after update")
    chip.read_gradients()


def _samples(design: Design, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random data words; targets are 0 or 1, or missing where the design knows masks."""
    generator = np.random.default_rng(seed)
    limit = 1 << (design.hardware.input_bits - 1)
    x = generator.integers(-(limit // 4), limit // 4 + 1, (count, design.dynamics.steps, design.inputs))
    most = (1 << design.hardware.target_bits - 1) - 1
    one = min(1 << design.fractions["target"], most) if design.target_width else 0
    y = generator.integers(0, 2, (count, design.target_rows, design.target_width)) * one
    return x, y if design.missing is None else np.where(generator.integers(0, 2, y.shape), y, design.missing)
