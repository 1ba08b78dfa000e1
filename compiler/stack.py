"""Stacks: Hamiltonian layers that feed each other, directly or through feed-forward blocks."""

from collections.abc import Mapping
from typing import Any

import torch

from echolith.compiler.errors import CompileError
from echolith.compiler.scalars import whole
from echolith.compiler.taken import ARGUMENTS, FORMATS
from echolith.compiler.trace import double, float64, shapes
from echolith.compiler.wires import INPUT, Wires, ordered, sources

__all__ = ["Stack", "value_shapes"]

Values = dict[str, torch.Tensor]
_FIXED = "inputs", "wires", "order", "layers", "output"  # of a stack that is made
_RESERVED = "outputs", "cost", "predict"  # for what subclasses may add later


class Stack(torch.nn.Module):
    """Parts and wires between them; a subclass adds ``outputs``, ``cost(q, y)`` and, if it likes, ``predict(q)``, where
    ``q`` is the value of the last part.

    A part with ``energy(q, u)`` is a layer: it has one state, its value is its position, and its one source, flattened,
    is its input. Any other module is a block: its value is ``module(*sources)`` of one sample, without a batch axis.
    In every substep all layers drift, ``q += dt * dT/dp``; blocks are evaluated at these positions; all layers are
    kicked, ``p -= dt * dV/dq(q, u)``, with inputs of the same positions.

    Parameters
    ----------
    parts : dict
        Modules by name. Their parameters are named ``part.parameter``; a tensor that two parts share is one parameter
        with the first's name, and its gradient the sum of both.
    wires : dict
        Sources of parts: a name or several; ``"u"`` is the input row. A part that is left out has the part before it,
        the first one ``"u"``.
    inputs : int
        Width of ``u``.

    Attributes
    ----------
    wires
        Sources of every part, a tuple each.
    order
        All parts, each behind its sources.
    layers
        The layers, in this order.
    output
        The part that cost and predict read.
    """

    inputs: int
    outputs: int  # of subclasses
    wires: dict[str, tuple[str, ...]]
    order: tuple[str, ...]
    layers: tuple[str, ...]
    output: str

    def __init__(self, parts: Mapping[str, torch.nn.Module], wires: Wires | None = None, *, inputs: int):
        super().__init__()
        if not isinstance(parts, Mapping | torch.nn.ModuleDict):
            raise CompileError(f'parts must map names to modules, e.g. {{"layer": Layer()}}, not '
                               f"{type(parts).__name__}")
        for name, part in parts.items():
            _check_part(name, part)
        if (width := whole(inputs, 1)) is None:
            raise CompileError(f"inputs must be a whole number from 1 on, not {inputs!r}")
        self.inputs = width
        self.wires = sources(tuple(parts), {} if wires is None else wires)
        self.order = ordered(self.wires)
        self.layers = tuple(name for name in self.order if callable(getattr(parts[name], "energy", None)))
        if not self.layers:
            raise CompileError("parts: one at least must be a layer, with energy(self, q, u), not only blocks: "
                               f"{', '.join(parts)}")
        for name in self.layers:
            _check_layer(name, parts[name], self.wires[name])
        self.output = next(reversed(self.wires))
        for name, part in parts.items():
            if hasattr(self, name) or name in _RESERVED:
                raise CompileError(f"parts: names must not be attributes of {type(self).__name__}, not {name!r}")
            self.add_module(name, part)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and value != self.__dict__.get(name, value):
            raise CompileError(f"{type(self).__name__}: parts and wires are what the stack was made with; make another "
                               f"one, do not set {name!r}")
        if name in self.__dict__.get("wires", ()) and name in self._modules:
            raise CompileError(f"{type(self).__name__}: {name} is a part, which keeps its name; give the new attribute "
                               f"another, not {name!r}")
        super().__setattr__(name, value)

    def values(self, positions: Mapping[str, torch.Tensor], u: torch.Tensor) -> Values:
        """What every source is worth, ``"u"`` among them; of one sample.

        Parameters
        ----------
        positions
            Of the layers, by name.
        u
            The input row, (inputs,).
        """
        found = {INPUT: u, **positions}
        for name in self.order:
            if name not in self.layers:
                found[name] = self.get_submodule(name)(*(found[source] for source in self.wires[name]))
        return found

    def fed(self, layer: str, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The input of a layer, (inputs,)."""
        return values[self.wires[layer][0]].flatten()


def _check_part(name: object, part: object) -> None:
    if not (isinstance(name, str) and name.isidentifier()) or name == INPUT:
        raise CompileError(f'parts: names must be identifiers other than "{INPUT}", the input row, not {name!r}')
    if not isinstance(part, torch.nn.Module):
        raise CompileError(f"parts: {name} must be a torch.nn.Module, not {type(part).__name__}")


def _check_layer(name: str, part: torch.nn.Module, given: tuple[str, ...]) -> None:
    if ARGUMENTS.fullmatch(name) or FORMATS.fullmatch(name):
        raise CompileError("parts: layers must not have the names of formats, blocks or arguments; rename it, e.g. to "
                           f"{name}_, not {name!r}")
    if len(given) != 1:
        raise CompileError(f"wires: layer {name} must have one source; join several in a block, not {given}")
    states = getattr(part, "states", None)
    if not isinstance(states, dict) or len(states) != 1:
        raise CompileError(f'parts: layer {name} must declare one state, as states = {{"q": 32}} does; make several '
                           f"layers of several, not {states!r}")
    if whole(getattr(part, "inputs", None), 1) is None:
        raise CompileError(f"parts: layer {name} must declare inputs, a whole number from 1 on, not "
                           f"{getattr(part, 'inputs', None)!r}")


def value_shapes(stack: Stack) -> dict[str, tuple[int, ...]]:
    """Shapes of the values of all sources, of one sample.

    Raises CompileError for blocks that do not take what they are given, or are not functions of it alone, and for
    layers whose inputs are of another size.
    """
    copied = double(stack)
    found: dict[str, tuple[int, ...]] = {INPUT: (stack.inputs,)}
    for name in stack.order:
        part, given = copied.get_submodule(name), {source: found[source] for source in stack.wires[name]}
        if name not in stack.layers:
            found[name] = _block_shape(name, part, stack.wires[name], found)
            continue
        (shape,), (source,) = shapes(part).values(), given
        wanted, size = int(getattr(part, "inputs")), torch.Size(found[source]).numel()  # noqa: B009 - see trace.shapes
        if wanted != size:
            raise CompileError(f"wires: layer {name} must be fed as many values as it has inputs, {wanted}, not the "
                               f"{size} of {source}")
        found[name] = shape
    return found


def _block_shape(
    name: str, block: torch.nn.Module, given: tuple[str, ...], found: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    """Under vmap, as in training: it refuses random numbers, statistics of batches and branches on data."""
    zeros = [torch.zeros(1, *found[source], dtype=torch.float64) for source in given]
    before = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    try:
        with float64(), torch.no_grad():
            value = torch.func.vmap(block)(*zeros)
    except Exception as error:  # whatever the user's code raises
        text = str(error).splitlines()[0] if str(error) else ""
        taken = ", ".join(f"{source} of shape {found[source]}" for source in given)
        raise CompileError(f"parts: block {name} must be a function of one sample's {taken}, without a batch axis, not "
                           f"{type(error).__name__}: {text}") from error
    after = {**dict(block.named_parameters()), **dict(block.named_buffers())}
    kept = next((n for n in (*before, *after) if before.get(n) is not after.get(n)), None)
    if kept is not None:
        raise CompileError(f"parts: block {name} must be a function of what it is given, not of earlier steps: make "
                           f"what it remembers the state of a layer, not {kept!r}")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        what = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise CompileError(f"parts: block {name} must return one tensor of real numbers, not {what}")
    return tuple(value.shape[1:])
