"""A chip behind a link as a device: memory images, runs, results."""

import dataclasses
import time
from collections.abc import Iterator

import numpy as np

from echolith.compiler.design import Block, Design
from echolith.compiler.errors import DesignMismatch, LinkError, ResourceError
from echolith.compiler.isa import Context
from echolith.compiler.registers import ABI, MAGIC, Bank, address
from echolith.host.device import Device, Run
from echolith.host.link import Link
from echolith.host.stream import fetches
from echolith.sim.arith import gradient_width
from echolith.sim.weights import Words

__all__ = ["ChipDevice"]

_PATIENCE = 20.0  # seconds in which a running chip must have counted at least one cycle
_WINDOW = 1 << 15  # words of a streamed window


class ChipDevice(Device):
    """Opens the chip: refuses a wrong bitstream, loads the program into a fresh one.

    Parameters
    ----------
    design : Design
    link : Link
    load : bool
        Replace a different program that is already loaded instead of refusing it.

    Attributes
    ----------
    fresh : bool
        The program was loaded now, so that the weights on the chip are all zero.
    """

    def __init__(self, design: Design, link: Link, *, load: bool = False):
        self.design, self.link, self.hw = design, link, design.hardware
        self._held: int | None = None
        self._check_hardware()
        program = self._get("program")
        if program not in (0, design.program_id) and not load:
            raise DesignMismatch("the chip holds another program: open it with load=True to replace it, or open the "
                                 f"design it was loaded from; the design is {design.program_id:08x}, the chip has "
                                 f"{program:08x}")
        self.fresh = program != design.program_id
        if self.fresh:
            self._load()
        self.response, self.gain = design.response, design.gain

    def _check_hardware(self) -> None:
        magic, abi, hardware = self.link.read(address("magic"), 3)
        if magic != MAGIC:
            raise DesignMismatch(f"there is no echolith chip at the other end: its magic word is {magic:08x}")
        if abi != ABI:
            raise DesignMismatch(f"the bitstream speaks another version: build it again; this host has {ABI}, the "
                                 f"chip {abi}")
        if hardware != self.hw.hardware_id:
            raise DesignMismatch("the bitstream was built for another hardware: load this design's bitstream; the "
                                 f"design is {self.hw.hardware_id:08x}, the chip {hardware:08x}")

    def _get(self, name: str) -> int:
        return self.link.read(address(name))[0]

    def _load(self) -> None:
        """Program, index, tables, the constant ones, zeros everywhere a sweep may read."""
        d, hw = self.design, self.hw
        self._put(Bank.PROGRAM, 0, np.array(d.program, np.int64))
        if d.index:
            self._put(Bank.INDEX, 0, np.array(d.index, np.int64))
        for slot, table in enumerate(d.tables):
            self._put(Bank.TABLES, slot << hw.segments + 1, table.reshape(-1))
        positions = np.zeros((hw.contexts, hw.depths.units, 2), np.int64)
        positions[:3, d.units] = 1 << d.fractions["state"]
        positions[3:, d.inputs] = 1 << d.fractions["input"] + hw.input_shift
        self._put(Bank.POSITIONS, 0, positions.reshape(-1))
        self._put(Bank.MOMENTA, 0, np.zeros(8 * hw.depths.units, np.int64))
        zero: Words = {b.name: np.zeros((b.rows, b.columns), np.int64) for b in d.blocks}
        zero.update({f"vector{i}": np.zeros(v.length, np.int64) for i, v in enumerate(d.vectors)})
        self.write(zero)
        if hw.learn:
            self.write_gradients(zero)
        self.link.write(address("program"), d.program_id)

    # -- memory ----------------------------------------------------------------------------------------------------

    def _select(self, bank: Bank, entry: int, wide: bool) -> None:
        self.link.write(address("bank"), bank, entry * (2 if wide else 1))

    def _put(self, bank: Bank, entry: int, words: np.ndarray, wide: bool = False) -> None:
        """Write consecutive entries of a bank."""
        self._select(bank, entry, wide)
        unsigned = words.astype(np.int64)
        if wide:
            unsigned = np.stack([unsigned, unsigned >> 32], axis=1).reshape(-1)
        self.link.push((unsigned & 0xFFFFFFFF).astype(np.uint32))

    def _take(self, bank: Bank, entry: int, count: int, bits: int, wide: bool = False) -> np.ndarray:
        """Read consecutive entries of ``bits`` signed bits."""
        step = 2 if wide else 1
        self._select(bank, entry, wide)

        def rewind(done: int) -> None:
            self.link.write(address("pointer"), entry * step + done)

        words = self.link.pull(count * step, rewind).astype(np.int64)
        if wide:
            words = words[0::2] | words[1::2] << 32
        return ((words & (1 << bits) - 1) ^ 1 << bits - 1) - (1 << bits - 1)

    @property
    def _wide(self) -> bool:
        return 2 * self.hw.width > 32

    def _places(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Lane and address of every word of a block, (rows, columns) each."""
        rows = np.arange(block.rows)[:, None]
        lane = rows % self.hw.lanes + np.zeros((1, block.columns), np.int64)
        return lane, block.base + rows // self.hw.lanes * block.stride + np.arange(block.columns)

    @property
    def _used(self) -> int:
        return max((b.base + (self.design.tiles(b) - 1) * b.stride + b.columns for b in self.design.blocks), default=0)

    def _scatter(self, words: Words, lanes: Bank, vectors: Bank) -> None:
        image = np.zeros((self.hw.lanes, self._used), np.int64)
        for block in self.design.blocks:
            image[self._places(block)] = words[block.name]
        for lane in range(self.hw.lanes):
            self._put(lanes, lane * self.hw.depths.weights, image[lane], self._wide)
        for i in range(len(self.design.vectors)):
            self._put(vectors, i * self.hw.depths.units, words[f"vector{i}"], self._wide)

    def _gather(self, lanes: Bank, vectors: Bank, bits: int) -> Words:
        image = np.stack([self._take(lanes, lane * self.hw.depths.weights, self._used, bits, self._wide)
                          for lane in range(self.hw.lanes)])
        words = {b.name: image[self._places(b)] for b in self.design.blocks}
        for i, v in enumerate(self.design.vectors):
            words[f"vector{i}"] = self._take(vectors, i * self.hw.depths.units, v.length, bits, self._wide)
        return words

    def write(self, words: Words) -> None:
        self._scatter(words, Bank.WEIGHTS, Bank.VECTORS)

    def read(self) -> Words:
        return self._gather(Bank.WEIGHTS, Bank.VECTORS, 2 * self.hw.width)

    def write_gradients(self, words: Words) -> None:
        self._scatter(words, Bank.GRADIENTS, Bank.VECTOR_GRADIENTS)

    def read_gradients(self) -> Words:
        return self._gather(Bank.GRADIENTS, Bank.VECTOR_GRADIENTS, gradient_width(self.hw.width))

    def states(self, program: tuple[int, ...], entry: str, x: np.ndarray, target: np.ndarray
               ) -> tuple[np.ndarray, np.ndarray]:
        """Positions and momenta, (contexts, elements, slots), after ``program`` ran in place of ``entry`` on at most
        one pair of samples. The design's program is put back."""
        whole = self.design
        if len(program) > self.hw.depths.program:
            raise ResourceError(f"a program must fit the {self.hw.depths.program} words of this hardware's memory, not "
                                f"{len(program)}")
        self.link.write(address("program"), 0)  # whoever finds the chip in between loads it again
        self._put(Bank.PROGRAM, 0, np.array(program, np.int64))
        self.design = dataclasses.replace(whole, program=program, entries={entry: 0})
        try:
            self.run(entry, x, target)
        finally:
            self.design = whole
        self._put(Bank.PROGRAM, 0, np.array(whole.program[:len(program)], np.int64))
        self.link.write(address("program"), whole.program_id)
        shape = (Context.INPUT, self.hw.depths.units, 2)
        q, p = (self._take(bank, 0, int(np.prod(shape)), self.hw.width).reshape(shape)
                for bank in (Bank.POSITIONS, Bank.MOMENTA))
        return q, p

    # -- runs ------------------------------------------------------------------------------------------------------

    def _records(self, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        """(samples, record) data words: rows of inputs, each followed by its targets where it has some."""
        d = self.design
        if not d.target_width:
            return x.reshape(len(x), -1)
        if d.dynamics.cost_at == "every":
            return np.concatenate([x, target], axis=2).reshape(len(x), -1)
        return np.concatenate([x.reshape(len(x), -1), target.reshape(len(x), -1)], axis=1)

    def _capacity(self, entry: str) -> int:
        """Samples per run by order and result memory; even."""
        results = self.design.result_rows * self.design.outputs if entry != "echo" else 1
        return max(min(self.hw.depths.order, self.hw.depths.results // results) // 2 * 2, 2)

    def run(self, entry: str, x: np.ndarray, target: np.ndarray) -> Run:
        records = self._records(x, target)
        self._held = None
        fit = self.hw.depths.data // max(records.shape[1], 1) // 2 * 2
        if fit == 0:  # windows come in the order in which one pair needs them
            entry = "learn" if entry == "unchecked" else entry
            parts = [self._streamed(entry, records[i:i + 2]) for i in range(0, len(x), 2)]
            return _joined(parts)
        parts = []
        for start in range(0, len(x), min(fit, self._capacity(entry))):
            part = records[start:start + min(fit, self._capacity(entry))]
            self._put(Bank.DATA, 0, part.reshape(-1))
            parts.append(self._go(entry, np.arange(len(part)) * records.shape[1]))
        return _joined(parts)

    def hold(self, x: np.ndarray, target: np.ndarray) -> bool:
        records = self._records(x, target)
        if records.size > self.hw.depths.data:
            return False
        self._put(Bank.DATA, 0, records.reshape(-1))
        self._held = records.shape[1]
        return True

    def run_held(self, entry: str, order: np.ndarray) -> Run:
        if self._held is None:
            raise ValueError("hold a data set before run_held")
        step = self._capacity(entry)
        return _joined([self._go(entry, order[i:i + step] * self._held) for i in range(0, len(order), step)])

    def _go(self, entry: str, bases: np.ndarray) -> Run:
        """Run pairs of records at data addresses ``bases``; an odd last one is doubled and its double masked."""
        mask = 1 << (self.hw.depths.data - 1).bit_length()
        places = [*bases.tolist(), int(bases[-1]) | mask] if len(bases) % 2 else bases.tolist()
        self._put(Bank.ORDER, 0, np.array(places, np.int64))
        self._start(entry, len(places) // 2, 0)
        return self._finish(entry, len(bases))

    def _streamed(self, entry: str, records: np.ndarray) -> Run:
        """One pair whose records do not fit the data memory: windows forward, then the same rows reversed."""
        mask = 1 << (self.hw.depths.data - 1).bit_length()
        pair = records if len(records) == 2 else np.repeat(records, 2, axis=0)
        self._put(Bank.ORDER, 0, np.array([0, 0 if len(records) == 2 else mask], np.int64))
        self.link.write(address("bank"), Bank.STREAM)
        self._start(entry, 1, 4)
        for window in _windows(pair, fetches(self.design.program, self.design.entries[entry])):
            self.link.push((window & 0xFFFFFFFF).astype(np.uint32), stall=_PATIENCE)
        return self._finish(entry, len(records))

    def _start(self, entry: str, pairs: int, mode: int) -> None:
        self.link.write(address("range"), self.response, self.gain)
        self.link.write(address("entry"), self.design.entries[entry], pairs)
        self.link.write(address("control"), 1 | mode)

    def _wait(self) -> None:
        """Until idle; a chip that counts no cycles for a while is given up."""
        seen, since, pause = -1, time.monotonic(), 0.0
        while self._get("status") & 1:
            cycles = self._get("cycles") - self._get("stalls")
            if cycles != seen:
                seen, since = cycles, time.monotonic()
            elif time.monotonic() - since > _PATIENCE:
                self.link.write(address("control"), 2)
                raise LinkError(f"the chip has stood still for {_PATIENCE:g} s after {cycles} cycles; it was stopped")
            time.sleep(pause)
            pause = min(pause + 0.001, 0.02)

    def _finish(self, entry: str, samples: int) -> Run:
        self._wait()
        first = address("flags")
        words = self.link.read(first, address("saturated") - first + 1)
        outputs = None
        if entry in ("predict", "learn", "unchecked"):
            d = self.design
            pairs = -(-samples // 2)
            raw = self._take(Bank.RESULTS, 0, pairs * d.result_rows * d.outputs * 2, self.hw.width)
            raw = raw.reshape(pairs, d.result_rows, d.outputs, 2).transpose(0, 3, 1, 2)
            outputs = raw.reshape(2 * pairs, d.result_rows, d.outputs)[:samples]

        def state(name: str) -> int:
            return words[address(name) - first]

        return Run(outputs, state("flags"), state("response"), state("leading"), state("saturated"), state("cycles"),
                   state("stalls"))

    def update(self, rates: dict[str, tuple[int, int]]) -> Run:
        for name, index in self.design.rates.items():
            mantissa, coarse = rates.get(name, (0, 0))
            word = self.design.program[index] & ~0xFFFFFF | mantissa & (1 << 22) - 1 | coarse << 22
            self._put(Bank.PROGRAM, index, np.array([word], np.int64))
        self._start("update", 1, 0)
        return self._finish("update", 0)

    def clear(self) -> None:
        self._start("clear", 1, 0)
        self._finish("clear", 0)

    def close(self) -> None:
        self.link.close()


def _windows(pair: np.ndarray, order: Iterator[tuple[int, int]]) -> Iterator[np.ndarray]:
    """Words in the order of the fetches, sample a before sample b, in windows of bounded size."""
    window: list[np.ndarray] = []
    size = 0
    for offset, length in order:
        window.append(pair[:, offset:offset + length].reshape(-1))
        size += 2 * length
        if size >= _WINDOW:
            yield np.concatenate(window)
            window, size = [], 0
    if window:
        yield np.concatenate(window)


def _joined(parts: list[Run]) -> Run:
    """Runs on consecutive samples as one."""
    flags = response = leading = 0
    for part in parts:
        flags, response, leading = flags | part.flags, response | part.response, leading | part.leading
    outputs = [p.outputs for p in parts if p.outputs is not None]
    return Run(
        np.concatenate(outputs) if outputs else None, flags, response, leading, sum(p.saturated for p in parts),
        sum(p.cycles or 0 for p in parts), sum(p.stalls or 0 for p in parts))
