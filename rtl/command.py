"""An execution word as a struct; the layout is that of `compiler.isa.Field`."""

from amaranth.lib import data

from echolith.compiler.design import Hardware
from echolith.compiler.isa import DRIFT_BITS, KIND_BITS, Context, Field, Opcode, Pairing

__all__ = ["Command", "beside", "buffer", "first_tile", "older", "one_tile", "region", "slot_sample"]


class Command(data.Struct):
    context: 2
    dest: 2
    echo: 1
    source: 1
    emit: 1
    reverse: 1
    nudge: 1
    drift: 1
    learn: 1
    spread: 1
    clear: 1
    check: 1
    target: 1
    value: 1
    kind: KIND_BITS
    rows: 1
    force: 1
    maximum: 1
    mass: 1
    drift_kind: DRIFT_BITS
    gather: 1
    gather_second: 1


for _name, _field in Field.__members__.items():
    if data.Layout.cast(Command)[_name.lower()].offset != _field:
        raise AssertionError(f"Command.{_name.lower()} must be at bit {_field} as in isa.Field")


def slot_sample(context, slot):
    """Which sample of the pair a slot works on: its own in PAIR, else the echo's."""
    return (context == Context.ECHO_B) | ((context == Context.PAIR) & slot)


def _bits(command, field: Pairing, count: int = 1):
    return command.as_value()[field:field + count]


def buffer(command):
    """Of inputs and drives; `Hardware.paired` only, as those below."""
    return _bits(command, Pairing.BUFFER, 2)


def older(command):
    return _bits(command, Pairing.OLDER)


def one_tile(command):
    return _bits(command, Pairing.TILE)


def first_tile(command):
    return _bits(command, Pairing.FIRST)


def beside(hw: Hardware, opcode):
    """Whether the sweep engine has no part in it."""
    return (opcode == Opcode.FETCH) | ((opcode == Opcode.UNITS) if hw.paired else 0)


def region(hw: Hardware, command):
    """Of the row operands: one copy need not wait for another."""
    return _bits(command, Pairing.REGION) if hw.paired else command.context == Context.ECHO_B
