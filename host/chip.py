"""A chip behind a link as a device: memory images, runs, results."""

import dataclasses
import time
from collections.abc import Iterable

import numpy as np

from echolith.compiler.cut import guard
from echolith.compiler.cycles import cycles
from echolith.compiler.design import Block, Design
from echolith.compiler.errors import DesignMismatch, LinkError, ResourceError
from echolith.compiler.isa import Context
from echolith.compiler.registers import ABI, ERRORS, MAGIC, Bank, Flag, address
from echolith.host.device import Device, Run, Samples
from echolith.host.link import Link
from echolith.host.outputs import Outputs
from echolith.host.stream import streamed
from echolith.host.windows import Place, Room, Window
from echolith.sim.arith import gradient_width
from echolith.sim.state import State
from echolith.sim.weights import Words

__all__ = ["ChipDevice"]

_PAUSE = 1e-4  # seconds between the first looks at a running chip
_PATIENCE = 20.0  # seconds in which a running chip must have counted at least one cycle


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
        self._room = Room(self.hw.depths, design.record.lines, self.hw.overlap)
        self._outputs: Outputs | None = None  # of the last run, on the chip
        self._rates: dict[int, int] = {}  # words of the program that updates have set
        self._lost = False  # a run was left alone
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
        self.link.write(address("program"), 0)  # whoever finds the chip half loaded loads it again
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

    def switched(self, design: Design) -> "ChipDevice":
        return ChipDevice(design, self.link, load=True)

    # -- memory ----------------------------------------------------------------------------------------------------

    def _select(self, bank: Bank, entry: int, wide: bool) -> None:
        if self._lost:
            self._settle()
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
        each = self.hw.tile_rows(block.rows)
        lane = rows % each + np.zeros((1, block.columns), np.int64)
        return lane, block.base + rows // each * block.stride + np.arange(block.columns)

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
        self._rates.clear()
        self._put(Bank.PROGRAM, 0, np.array(program, np.int64))
        self.design = dataclasses.replace(whole, program=program, entries={entry: 0})
        try:
            self.run(entry, x, target)
        finally:
            self.design = whole
        self._put(Bank.PROGRAM, 0, np.array(whole.program[:len(program)], np.int64))
        self.link.write(address("program"), whole.program_id)
        return self._states()

    def _states(self) -> tuple[np.ndarray, np.ndarray]:
        shape = (Context.INPUT, self.hw.depths.units, 2)
        q, p = (self._take(bank, 0, int(np.prod(shape)), self.hw.width).reshape(shape)
                for bank in (Bank.POSITIONS, Bank.MOMENTA))
        return q, p

    # -- runs ------------------------------------------------------------------------------------------------------

    def _most(self, entry: str, held: bool) -> int:
        """Samples of a window; even. 0: they must be streamed."""
        found = self._room.most(held)
        return found if entry == "echo" else min(found, max(self._most_results, 2))

    @property
    def _most_results(self) -> int:
        """Samples whose results fit, leaving room for those of another run; even."""
        words = self.hw.depths.results // (1 + self.hw.overlap)
        return words // (self.design.result_rows * self.design.outputs) // 2 * 2

    @property
    def _mask(self) -> int:
        """Of an entry of the order memory whose sample is a double."""
        return 1 << (self.hw.depths.data - 1).bit_length()

    def _windows(self, entry: str, x: np.ndarray, target: np.ndarray) -> list[Window]:
        lines, size, most = self.design.record.pack(x, target), self.design.record.lines, self._most(entry, False)
        return [Window(part, np.arange(len(part)) * size, self._mask)
                for part in (lines[i:i + most] for i in range(0, len(lines), most))]

    def _held_windows(self, entry: str, order: np.ndarray) -> list[Window]:
        begins, most = order * self.design.record.lines, self._most(entry, True)
        return [Window(None, begins[i:i + most], self._mask) for i in range(0, len(order), most)]

    def run(self, entry: str, x: np.ndarray, target: np.ndarray, then: Samples | None = None) -> Run:
        if not self._most(entry, False):
            self._room.drop()
        if not self._most(entry, False):  # windows come in the order in which one pair needs them
            entry = "learn" if entry == "unchecked" else entry
            return self._streams(entry, x, target)
        return self._run(entry, self._windows(entry, x, target), self._windows(entry, *then) if then else [])

    def hold(self, x: np.ndarray, target: np.ndarray) -> bool:
        lines = self.design.record.pack(x, target)
        if lines.size > self.hw.depths.data:
            return False
        if self._room.held is None or not np.array_equal(self._room.held, lines):
            self._room.drop()
            self._put(Bank.DATA, 0, lines.reshape(-1))
            self._room.keep(lines)
        return True

    def run_held(self, entry: str, order: np.ndarray, then: np.ndarray | None = None) -> Run:
        if self._room.held is None:
            raise ValueError("hold a data set before run_held")
        return self._run(entry, self._held_windows(entry, order),
                         [] if then is None else self._held_windows(entry, then))

    def _run(self, entry: str, windows: list[Window], then: list[Window]) -> Run:
        """Window by window; while one computes, the next is sent and the last one's outputs are fetched. Ends with one
        that fails."""
        parts, place, outputs, seen = [], None, list[Outputs](), 0
        for window, following in zip(windows, [*windows[1:], *then[:1], None], strict=False):
            place = self._room.find(window) or self._send(window, self._room.other(place))
            try:
                into = self._start(entry, window.pairs, place.order)
                if following and not self._room.find(following) and self._room.free(following):
                    self._send(following, self._room.other(place))
                if self._outputs is not None:
                    self._outputs.fetch()
                parts.append(self._located(entry, self._finish(), seen, window.samples))
                seen += window.samples
                if entry in ("predict", "learn", "unchecked"):
                    self._outputs = Outputs(self, into, window.samples)
                    outputs.append(self._outputs)
                if parts[-1].flags & ERRORS:
                    break
            except BaseException:
                self._lost = True
                raise

        def late() -> np.ndarray:
            return np.concatenate([part.fetch() for part in outputs])

        pairs = tuple(w.pairs for w in windows)
        if then and outputs:
            return dataclasses.replace(_joined(parts), pairs=pairs, late=late)
        return dataclasses.replace(_joined(parts), pairs=pairs, outputs=late() if outputs else None)

    def _located(self, entry: str, run: Run, seen: int, samples: int) -> Run:
        """The run with what is left of a copy that did not return: it ended with that pair, as its cycles tell."""
        design = self.design
        if not run.flags >> Flag.ECHO & 1 or run.cycles is None or run.stalls is None or (
                guard(design.program, design.entries[entry]) is None):
            return run
        spent = run.cycles - run.stalls
        pair = min(range(-(-samples // 2)), key=lambda i: abs(
            cycles(design.program, design.entries[entry], self.hw, i + 1) - spent))
        q, p = (words[Context.PAIR, :design.units].T for words in self._states())  # (slots, units)
        slot = int(not (q[0].any() or p[0].any()))
        return dataclasses.replace(run, strayed=(seen + min(2 * pair + slot, samples - 1), State(q[slot], p[slot])))

    def _send(self, window: Window, place: Place) -> Place:
        if window.lines is not None:
            self._put(Bank.DATA, place.data, window.lines.reshape(-1))
        self._put(Bank.ORDER, place.order, window.order(place.data if window.lines is not None else 0))
        self._room.put(place, window)
        return place

    def _settle(self) -> None:
        """End a run that a broken link left alone; nothing is learned from it."""
        self._lost, self._outputs = False, None
        try:
            self.link.write(address("control"), 2)
            self._wait()
            if self.hw.learn:
                self.clear()
        except BaseException:
            self._lost = True
            raise

    def _streams(self, entry: str, x: np.ndarray, target: np.ndarray) -> Run:
        """Pair by pair, up to one that fails."""
        parts: list[Run] = []
        for i in range(0, len(x), 2):
            run = self._streamed(entry, x[i:i + 2], target[i:i + 2])
            parts.append(self._located(entry, run, i, len(x[i:i + 2])))
            if run.flags & ERRORS:
                break
        return _joined(parts)

    def _streamed(self, entry: str, x: np.ndarray, target: np.ndarray) -> Run:
        """One pair whose records do not fit the sample memory: rows forward, then the same rows reversed."""
        record, samples, mask = self.design.record, len(x), self._mask
        if samples == 1:
            x, target = np.repeat(x, 2, axis=0), np.repeat(target, 2, axis=0)
        rows = record.rows(x, 0), record.rows(target, 1) if record.reads else None
        self._room.forget()
        self._put(Bank.ORDER, 0, np.array([0, 0 if samples == 2 else mask], np.int64))
        self.link.write(address("bank"), Bank.STREAM)
        try:
            into = self._start(entry, 1, 0, 4)
            self._push(streamed(record, rows, self.design.program, self.design.entries[entry]))
            found = self._finish()
            return found if entry == "echo" else dataclasses.replace(found, outputs=self.outputs(into, samples))
        except BaseException:
            self._lost = True
            raise

    def _push(self, pieces: Iterable[np.ndarray]) -> None:
        """The rows of a run; one that a flag ended asks for no more."""
        try:
            for lines in pieces:
                self.link.push(lines.astype(np.uint32), stall=_PATIENCE)
        except LinkError:
            if self._get("status") & 1 or not self._get("flags") & ERRORS:
                raise

    def _start(self, entry: str, pairs: int, first: int = 0, mode: int = 0) -> int:
        """GO; returns where its outputs begin, not where those are that may still be fetched."""
        if self._lost:
            self._settle()
        into = 0
        if self._outputs is not None and (not self.hw.overlap or self._most_results < 2):  # there is no other half
            self._outputs.fetch()
        elif self._outputs is not None and self._outputs.into == 0:
            into = self.hw.depths.results // 2
        self.link.write(address("range"), self.response, self.gain, self.design.entries[entry], pairs, first, into,
                        1 | mode)  # to control
        return into

    def _wait(self) -> None:
        """Until idle; a chip that counts no cycles for a while is given up."""
        seen, since, rested = -1, time.monotonic(), 0.0
        while self._get("status") & 1:
            if time.monotonic() - since > _PATIENCE:
                cycles = self._get("cycles") - self._get("stalls")
                if cycles == seen:
                    self.link.write(address("control"), 2)
                    raise LinkError(f"the chip has stood still for {_PATIENCE:g} s after {cycles} cycles; it was "
                                    "stopped")
                seen, since = cycles, time.monotonic()
            pause = min(_PAUSE + rested / 50, 0.02)
            self.link.rest(pause)
            rested += pause

    def _finish(self) -> Run:
        self._wait()
        first = address("flags")
        words = self.link.read(first, address("saturated") - first + 1)

        def state(name: str) -> int:
            return words[address(name) - first]

        return Run(None, state("flags"), state("response"), state("leading"), state("saturated"), state("cycles"),
                   state("stalls"))

    def outputs(self, into: int, samples: int) -> np.ndarray:
        """(samples, read-outs, outputs) words of a run whose results begin at ``into``."""
        d, pairs = self.design, -(-samples // 2)
        raw = self._take(Bank.RESULTS, into, pairs * d.result_rows * d.outputs * 2, self.hw.width)
        raw = raw.reshape(pairs, d.result_rows, d.outputs, 2).transpose(0, 3, 1, 2)
        return raw.reshape(2 * pairs, d.result_rows, d.outputs)[:samples]

    def update(self, rates: dict[str, tuple[int, int]]) -> Run:
        for name, index in self.design.rates.items():
            self._rate(index, *rates.get(name, (0, 0)))
        self._start("update", 1)
        return self._finish()

    def _rate(self, index: int, mantissa: int, coarse: int) -> None:
        """Write the word of the program that sets a RATE, if it has changed."""
        word = self.design.program[index] & ~0xFFFFFF | mantissa & (1 << 22) - 1 | coarse << 22
        if self._rates.get(index) != word:
            self._put(Bank.PROGRAM, index, np.array([word], np.int64))
            self._rates[index] = word

    def clear(self) -> None:
        self._start("clear", 1)
        self._finish()

    def close(self) -> None:
        self.link.close()


def _joined(parts: list[Run]) -> Run:
    """Runs on consecutive samples as one."""
    flags = response = leading = 0
    for part in parts:
        flags, response, leading = flags | part.flags, response | part.response, leading | part.leading
    outputs = [p.outputs for p in parts if p.outputs is not None]
    return Run(
        np.concatenate(outputs) if outputs else None, flags, response, leading, sum(p.saturated for p in parts),
        sum(p.cycles or 0 for p in parts), sum(p.stalls or 0 for p in parts),
        pairs=tuple(n for p in parts for n in p.pairs), strayed=next((p.strayed for p in parts if p.strayed), None))
