"""The frozen `Design`: everything that RTL, integer model, host and reports need to know, and nothing else does.

`Hardware` becomes gates (``hardware_id`` is in the bitstream); the rest is loaded over the link (``program_id``).
"""

import dataclasses
import json
import zlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from echolith.compiler.costs import Cost
from echolith.compiler.damping import Damping
from echolith.compiler.derived import Derived, completed, unlearnable
from echolith.compiler.formats import Format, Packed
from echolith.compiler.ir import Expr
from echolith.compiler.isa import BUFFERS
from echolith.compiler.kinetic import Drift
from echolith.compiler.pipeline import Pipeline
from echolith.compiler.record import Record
from echolith.compiler.select import Pass
from echolith.compiler.steps import ONE, OUTPUT, Drive, Matrix
from echolith.compiler.sweep import Sweep

__all__ = ["Block", "Depths", "Design", "Dynamics", "Hardware", "Placement", "Rule", "Vector"]


def checksum(value: object) -> int:
    """CRC-32 of the canonical JSON of a mapping, never 0."""
    text = json.dumps(value, sort_keys=True)
    return zlib.crc32(text.encode()) or 1


_NARROW = ("input_bits", "target_bits")


@dataclass(frozen=True)
class Depths:
    """Words of each memory; powers of two, so that neighbouring sizes share one bitstream."""

    weights: int  # per lane
    units: int  # per context: positions and the constant one, or inputs and the constant one
    rows: int
    tiles: int  # rows per lane
    outputs: int
    data: int  # lines
    order: int
    results: int
    program: int
    index: int = 0  # elements of gathered operands; 0: nothing is gathered
    deltas: int = 0  # cost derivatives kept for a pair's echoes; 0: none are


@dataclass(frozen=True)
class Hardware:
    """What the netlist is made from."""

    width: int  # bits of states, of the swept part of weights and of all multiplier operands
    lanes: int
    learn: bool  # gradient memory, echo and update
    accumulator: int  # bits of a sum of products
    segments: int  # log2 of the pieces of a table
    tables: int
    data_width: int  # bits of a line of the sample memory
    depths: Depths
    input_shift: int  # data word << this is the array's operand
    drive_shift: int  # sum -> drive
    general: bool  # sweeps and passes take offsets (the settings from SOURCE on); else these are all zero
    activate: tuple[Pipeline, ...]  # by kind: acc, drive -> t
    cost: Pipeline | None  # acc, target -> y, delta
    step: tuple[Pipeline, ...]  # by kind: acc, q, r, k0... -> force, g0...; r is the second operand
    drift: tuple[Pipeline, ...]  # by kind: p, k0... -> d, the change of q, and g0...
    nudge_shift: int  # sum -> nudge
    delta_shift: int  # delta << exponent -> t
    readout_shift: int  # delta -> ts of the readout's own gradient
    vectors: tuple[bool, ...]  # one per vector parameter: a single shared word?
    overlap: bool = False  # a sweep starts while the results of others are on their way; windows of samples take turns
    repeat: bool = False  # sweeps go over a block several times, each time with the next operands
    adding: bool = False  # gradients of both samples in PAIR are added
    input_bits: int = 0  # of a word of inputs, of targets; as a line if 0
    target_bits: int = 0
    packed: Packed | None = None  # sweeps see rounded weights and operands, two products share a multiplier
    stacked: bool = False  # contrasts of echoes are kept with the pair
    shrinks: bool = False  # an update can make parameters smaller: weight decay

    @property
    def paired(self) -> bool:
        """A pair of samples runs forward beside the echoes of the one before; see `isa.Pairing`."""
        return self.overlap and not self.general

    def tile_rows(self, rows: int) -> int:
        """Of a block. With `paired` all its tiles have as many, the last one a few less, so that the sums of none take
        longer to leave than they must; else all lanes are filled."""
        return -(-rows // -(-rows // self.lanes)) if self.paired else self.lanes

    @property
    def burst(self) -> bool:
        """The columns of a single tile are summed one per cycle, and wait for the neuron unit."""
        return self.paired and self.depths.rows < 2 * self.lanes

    @property
    def dropped(self) -> int:
        """Bits below those of a sum of packed products, all zero."""
        return 2 * self.width - self.packed.weight - self.packed.operand if self.packed else 0

    @property
    def contexts(self) -> int:
        """Places in the bank of positions: of the pair, of both echoes, and the buffers of inputs."""
        return 3 + (BUFFERS if self.paired else 1)

    @cached_property
    def hardware_id(self) -> int:
        """CRC-32 of this description; what came later counts where it is there."""
        absent = {"adding": not self.adding, "packed": not self.packed, "stacked": not self.stacked,
                  "shrinks": not self.shrinks,
                  **dict.fromkeys(_NARROW, self.input_bits == self.target_bits == self.data_width)}
        found = {name: v for name, v in dataclasses.asdict(self).items() if not absent.get(name)}
        if not self.depths.deltas:
            del found["depths"]["deltas"]
        return checksum(found)

    def word(self, name: str) -> int:
        """Bits of the words of a format called ``name``."""
        return {"input": self.input_bits, "target": self.target_bits}.get(name, self.width)

    def __post_init__(self) -> None:
        for name in _NARROW:
            if not getattr(self, name):
                object.__setattr__(self, name, self.data_width)


@dataclass(frozen=True)
class Block:
    """A coupling in the lanes: row r is in lane r % n at address base + (r // n) * stride + column, n being
    `Hardware.tile_rows`."""

    name: str  # "hidden", "drive" or "readout"
    base: int
    rows: int
    columns: int
    stride: int  # words of a tile: those of all blocks that share it


@dataclass(frozen=True)
class Placement:
    """Columns of a block that one or several parameters (their sum) own.

    A master word is ``scale * sum(parameters) * 2^fraction``; every learned parameter's gradient, summed over the
    samples, is ``gradient_scale`` times the gradient word.
    """

    block: str
    column: int
    columns: int
    parameters: tuple[str, ...]
    transposed: tuple[bool, ...]
    windows: tuple[tuple[int, ...], ...]  # (row, stop, column, stop) of the stored array; () is all of it
    learned: tuple[bool, ...]
    scale: float
    fraction: int
    gradient_scale: float

    @property
    def key(self) -> str:
        """Name of this placement's update in `Design.rates`."""
        return f"{self.block}.{self.column}"


@dataclass(frozen=True)
class Vector:
    """A parameter of the neuron unit: one word per unit, or one shared word."""

    parameter: str
    length: int
    learned: bool
    fraction: int
    gradient_scale: float


@dataclass(frozen=True)
class Dynamics:
    """Staggered leapfrog: ``substeps`` of length ``dt`` per input row."""

    dt: float
    substeps: int
    steps: int  # input rows per sample
    cost_at: str | None  # "last", "every", or None without a cost
    cost_scale: float = 1.0  # of each read-out's cost: 1 / steps for their mean
    check: int = 1  # batches to the next one that runs the un-nudged copy


@dataclass(frozen=True)
class Rule:
    """How parameters learn, as programs and the integer model need to know it."""

    name: str = "HamiltonianEcho"
    counted: bool = False  # gradient words are momenta: down on the way forward, up on the way back

    @property
    def runs(self) -> int:
        """Of a sample, side by side. The way forward does not know the size of nudge that suits the sample: what
        momenta count there must cancel between two runs, nudged up and down."""
        return 2 if self.counted else 1


@dataclass(frozen=True)
class Design:
    """A compiled network. Arrays are read only."""

    hardware: Hardware
    dynamics: Dynamics
    states: dict[str, int]
    units: int  # of all states
    inputs: int
    outputs: int  # words per sample and read-out: outputs, or units without a readout
    learned: tuple[str, ...]
    derived: tuple[Derived, ...]  # parameters that the host computes from others
    blocks: tuple[Block, ...]
    placements: tuple[Placement, ...]
    vectors: tuple[Vector, ...]
    sweeps: tuple[Sweep, ...]  # one evaluation of the force, with its gradients
    levels: tuple[Sweep, ...]  # of a softmax, before every cost
    drifts: tuple[Drift, ...]
    kinetic: dict[str, Expr]  # kinetic energy per unit of every state, over p and parameters
    kept_drives: dict[str, int]  # blocks whose sums are kept over the substeps -> their first row
    passes: tuple[Pass, ...]  # the same in float: what every sweep means
    matrices: dict[str, Matrix]
    drives: dict[str, Drive]
    program: tuple[int, ...]
    entries: dict[str, int]
    rates: dict[str, int]  # name of an update -> index of the program word that holds its RATE
    tables: tuple[np.ndarray, ...]  # (2^segments, 2) words each: value, difference to the next
    values: dict[str, np.ndarray]  # float64 parameters as given, constants of the compiler, and the derived ones
    fractions: dict[str, int]  # fraction bits by name, see quantise.Formats
    lowered: dict[str, tuple[int, ...]]  # fraction bits chosen inside the pipelines
    response: int  # response exponent R and gain found at calibration
    gain: int
    cost: Cost | None
    index: tuple[int, ...] = ()  # contents of the index memory
    parameters: dict[str, str] = field(default_factory=dict)  # names of the model's state_dict -> of values
    unused: tuple[str, ...] = ()  # parameters that would learn, but that nothing depends on
    reads: tuple[Sweep, ...] = ()  # before every read-out that is more than a block times the states
    backs: tuple[Sweep, ...] = ()  # behind its cost: gradients, and the nudges as row operands
    reading: tuple[Pass, ...] = ()  # what both mean in float
    rule: Rule = Rule()  # of no meaning where nothing learns
    feeds: tuple[Sweep, ...] = ()  # of a stack: what its layers are fed, before every force
    copies: tuple[Sweep, ...] = ()  # the same for an echo
    errors: tuple[Sweep, ...] = ()  # from the contrasts of a step: gradients between layers, nudges of those below
    lower: int = 0  # units that these nudges are for
    between: tuple[Pass, ...] = ()  # what the three mean in float
    apart: int = 0  # bits by which echoes should part further than usual, those of a stack's linear layers
    strengths: dict[str, int] = field(default_factory=dict)  # errors of layers -> bits of their stronger nudges
    finer: dict[str, int] = field(default_factory=dict)  # bits by which momenta of states have more than positions
    damping: Damping | None = None  # of momenta: what makes the chip's inputs of the model's
    report: dict = field(default_factory=dict)  # what explain() prints: ranges, energy text, dt^2 lambda_max, board

    @cached_property
    def program_id(self) -> int:
        """CRC-32 of program, tables and layout: what is loaded over the link besides weights and data."""
        words = json.dumps([self.hardware.hardware_id, self.program, self.entries,
                            [dataclasses.astuple(x) for x in (*self.blocks, *self.placements, *self.vectors)],
                            [t.tolist() for t in self.tables], self.fractions, self.index])
        return zlib.crc32(words.encode()) or 1

    @property
    def forces(self) -> tuple[Pass, ...]:
        """Passes of an evaluation of the force, those that feed layers of a stack before them."""
        return (*self.between[:len(self.feeds)], *self.passes)

    def learning(self, batch: int) -> str:
        """The entry that learns a session's batch of this number."""
        return "learn" if "unchecked" not in self.entries or batch % self.dynamics.check == 0 else "unchecked"

    def block(self, name: str) -> Block:
        return next(b for b in self.blocks if b.name == name)

    def tiles(self, block: Block) -> int:
        return -(-block.rows // self.hardware.lanes)

    @property
    def precision(self) -> dict[str, str]:
        """Formats by name, as `compile` takes them back: edit some and compile again.

        ``state`` is that of all states; ``u`` the inputs as operands; blocks are named as in `explain`, vectors and
        sums as there too. Q notation leaves out the sign bit: Q3.14 has 18 bits, ``ap_fixed<18,4>`` is the same.
        ``accumulator`` are the bits of a sum of products, ``table`` the pieces of a table, ``word`` the bits of all
        words, ``product`` those of the factors of packed products."""
        hw = self.hardware
        words = {name: str(Format(hw.word(name), frac)) for name, frac in self.fractions.items()
                 if name not in (*self.states, ONE)}
        words |= {"accumulator": f"{hw.accumulator} bits", "table": f"{1 << hw.segments} pieces"}
        return words | ({"product": str(hw.packed)} if hw.packed else {"word": f"{hw.width} bits"})

    @property
    def elements(self) -> int:
        """Elements of a context's vectors: the states, the constant one, the results that are kept, a zero."""
        kept = [s for s in (*self.sweeps, *self.reads, *self.backs, *self.levels, *self.feeds, *self.errors) if s.value]
        return max([self.units + 1, *(s.place + (1 if s.maximum else s.length) for s in kept),
                    *(i + 1 for i in self.index)])

    @property
    def held(self) -> frozenset[str]:
        """Parameters that the chip holds, derived ones among them."""
        return frozenset(n for p in self.placements for n in p.parameters) | {v.parameter for v in self.vectors}

    @property
    def computed(self) -> bool:
        """Whether the host computes parameters from others that learn, so that the chip cannot learn."""
        return unlearnable(self.derived, self.held, self.learned) is not None

    @property
    def read_place(self) -> int:
        """First element of what the readout block is applied to."""
        return next((s.place for s, p in zip(self.reads, self.reading, strict=False) if p.result == OUTPUT), 0)

    @cached_property
    def record(self) -> Record:
        """Where the data words of one sample are."""
        hw = self.hardware
        return Record(hw.data_width, (hw.input_bits, hw.target_bits), self.dynamics.steps, self.inputs,
                      self.target_width, self.target_rows if self.target_width else 0)

    @property
    def target_rows(self) -> int:
        return {"every": self.dynamics.steps, "last": 1, None: 0}[self.dynamics.cost_at]

    @property
    def missing(self) -> int | None:
        """The target word that stands for none; None if the hardware knows no masks."""
        ops = self.hardware.cost.ops if self.hardware.cost is not None else ()
        return next((op.n for op in ops if op.kind == "unless"), None)

    @property
    def target_width(self) -> int:
        return self.outputs if self.hardware.cost is not None else 0

    def with_weights(self, weights) -> "Design":
        """The design with other initial parameters: a ``state_dict`` or the path of a ``.safetensors`` file. Parameters
        that are not named keep their values; formats stay as they were calibrated."""
        from echolith.host.weights import merged

        return dataclasses.replace(self, values=completed(self.derived, merged(self, self.values, weights)))

    @cached_property
    def settable(self) -> frozenset[str]:
        """Parameters that the chip, or the host for it, computes with: those that may be given other values."""
        used = {name for p in self.placements for name in p.parameters} | {v.parameter for v in self.vectors}
        used |= {o.parameter for made in self.derived for o in made.operands.values()}
        return frozenset(used - {made.name for made in self.derived})

    def open(self, url: str = "int:", **options):
        """A `host.session.Session` on ``int:``, ``sim:`` or ``serial:///dev/ttyUSB0?baud=1000000``."""
        from echolith.host.session import open_design

        return open_design(self, url, **options)

    def save(self, path) -> None:
        """Write the design, with its initial parameters, to a ``.echolith`` file."""
        from echolith.compiler.files import save

        save(self, path)

    def build(self, out, **options):
        """Synthesise, place and route for the board the design was compiled for; see `boards.build.build`."""
        from echolith.boards.build import build

        return build(self, out, **options)

    def export(self, directory) -> None:
        """Verilog, golden vectors and a cocotb bench that needs nothing of echolith; see `sim.export.export`."""
        from echolith.sim.export import export

        export(self, directory)

    def verify(self, x, y=None, **options):
        """Compare float64, integer model and RTL on samples, phase by phase; see `sim.verify.verify`.

        In pytest: ``assert design.verify(X, Y)``."""
        from echolith.sim.verify import verify

        return verify(self, x, y, **options)

    def explain(self) -> str:
        """The design in words: energy, forces, updates, formats, schedule, cycles."""
        from echolith.compiler.explain import explain

        return explain(self)

    def estimate(self, **options) -> dict:
        """Cycles, speed, memory and cells of the board before synthesis; see `compiler.estimate.estimate`."""
        from echolith.compiler.estimate import estimate

        return estimate(self, **options)

    def precision_report(self, x, y=None, mask=None, values=None):
        """Ranges against formats, what the gradient loses, growth of perturbations; see
        `host.precision.precision_report`."""
        from echolith.host.precision import precision_report

        return precision_report(self, x, y, mask, values)

    @property
    def result_rows(self) -> int:
        """Read-outs per sample."""
        return self.dynamics.steps if self.dynamics.cost_at == "every" else 1
