"""From the user's module to a `Network`: trace the methods, read them, assemble, and check against autograd."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from echolith.compiler.check import check
from echolith.compiler.differentiate import names, substitute
from echolith.compiler.errors import CompileError
from echolith.compiler.ir import Affine, Coupling, Expr, Network, Term, const, var
from echolith.compiler.ops import add, div, sub
from echolith.compiler.read import read
from echolith.compiler.site import FORM, Site
from echolith.compiler.trace import double, parameters, trace
from echolith.compiler.values import Piece, Root, Scalar, Space, Store, Value, Vector, settle

__all__ = ["capture"]

_RESERVED = frozenset(("q", "u", "y", "z", "target"))


def capture(model: torch.nn.Module, points: Iterable[tuple[np.ndarray, np.ndarray]] = ()) -> Network:
    """The network that ``model`` describes; ``model`` is not changed.

    Parameters
    ----------
    model
        A module with ``states``, ``inputs``, ``energy(q, u)`` and, where they apply, ``outputs``, ``cost(q, y)`` and
        ``predict(q)``.
    points
        States and inputs, shapes (units,) and (inputs,), at which the result is compared with autograd in addition
        to a few random ones.

    Raises
    ------
    CompileError
        The model is not of the supported form; the text names method, operation, source line and remedy.
    """
    units, inputs, outputs = _sizes(model)
    copied = double(model)
    store = _store(copied)
    local, couplings = _energy(copied, store, units, inputs)
    readout, cost = _cost(copied, store, units, outputs)
    used = names(local) | {t.parameter for c in couplings for t in c.affine.terms}
    used |= {t.parameter for t in readout.terms} if readout else set()
    network = Network(
        units, inputs, outputs, local, couplings, readout, cost,
        {name: value for name, value in store.values.items() if name in used}, frozenset(store.learned & used),
    )  # fmt: skip
    check(network, copied, points)
    return network


def _sizes(model: torch.nn.Module) -> tuple[int, int, int]:
    """(units, inputs, outputs) as the model declares them."""
    name = type(model).__name__
    if not callable(getattr(model, "energy", None)):
        raise CompileError(f"{name} must define energy(self, q, u), a scalar in PyTorch, not {name} without it")
    states = getattr(model, "states", None)
    if not isinstance(states, Mapping) or not states:
        raise CompileError(f'{name}.states must map one state to its units, e.g. {{"q": 40}}, not {states!r}')
    if len(states) > 1:
        raise CompileError(f"{name}.states must hold one state; several belong to a later release, not {states!r}")
    units = next(iter(states.values()))
    units = units[0] if isinstance(units, tuple | list) and len(units) == 1 else units
    units = _positive(units, f"{name}.states must give a positive number of units in one axis, not {states!r}")
    inputs = getattr(model, "inputs", None)
    inputs = _positive(inputs, f"{name}.inputs must be the width of u, a positive integer, not {inputs!r}")
    needed = callable(getattr(model, "cost", None)) or callable(getattr(model, "predict", None))
    outputs = getattr(model, "outputs", None if needed else units)
    outputs = _positive(outputs, f"{name}.outputs must be the width of y, a positive integer, not {outputs!r}")
    return units, inputs, outputs


def _positive(value: object, message: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise CompileError(message)
    return value


def _store(model: torch.nn.Module) -> Store:
    values = {name: value.detach().to(torch.float64).numpy() for name, value in parameters(model).items()}
    for name in sorted(_RESERVED & set(values)):
        raise CompileError(f"{name} must not be the name of a parameter: it is a variable of the energy, not {name!r}")
    return Store(values, (name for name, p in model.named_parameters() if p.requires_grad))


def _sample(size: int) -> torch.Tensor:
    return torch.linspace(0.1, 0.9, size, dtype=torch.float64)


def _argument(kind: str, size: int) -> Vector:
    return Vector((Piece(Space(kind, size), var(kind)),), (size,))


def _energy(model: torch.nn.Module, store: Store, units: int, inputs: int) -> tuple[Expr, tuple[Coupling, ...]]:
    traced = trace(model, "energy", {"q": _sample(units), "u": _sample(inputs)})
    site, value = read(traced, store, {"q": _argument("q", units), "u": _argument("u", inputs)})
    scalar = _scalar(site, value)
    local = const(scalar.constant / units + 0.0)  # + 0.0: never -0
    couplings = []
    for piece in settle(store, scalar.pieces):
        if piece.space.kind == "q":
            local = add(local, piece.expr)
        elif piece.space.affine is None or all(t.source != "q" for t in piece.space.affine.terms):
            raise site.refuse("a term does not depend on the states", "remove it: it moves no state", piece.space)
        elif piece.expr.op != "const":
            couplings.append(Coupling(piece.space.affine, piece.expr))
    return local, tuple(couplings)


def _scalar(site: Site, value: Value) -> Scalar:
    if site.shape != ():
        raise site.refuse(f"the {site.method} must be a scalar", "sum it with .sum()", f"shape {site.shape}")
    if isinstance(value, Vector):  # one element, viewed as a scalar
        return Scalar(value.pieces)
    if isinstance(value, Root):
        raise site.refuse("a norm couples all units", "raise it to its own power, e.g. norm(q)**2", "a bare norm")
    if not isinstance(value, Scalar):
        raise site.refuse(f"the {site.method} does not depend on the states", FORM, type(value).__name__)
    return value


def _cost(model: torch.nn.Module, store: Store, units: int, outputs: int) -> tuple[Affine | None, Expr | None]:
    """(readout, cost): y = readout(q), shared by both methods; None where the model has none."""
    predicted = _predict(model, store, units, outputs) if callable(getattr(model, "predict", None)) else None
    if not callable(getattr(model, "cost", None)):
        return (_form(store, predicted) if predicted and predicted.space.kind == "rows" else None), None
    traced = trace(model, "cost", {"q": _sample(units), "y": _sample(outputs)})
    site, value = read(traced, store, {"q": _argument("q", units), "y": _argument("target", outputs)})
    scalar = _scalar(site, value)
    pieces = settle(store, scalar.pieces, single=True)
    if len(pieces) > 1:
        spaces = " and ".join(f"[{p.space}]" for p in pieces)
        raise site.refuse("the cost uses more than one readout", "compute one y = R q + b and use only y", spaces)
    return _readout(site, store, pieces[0], scalar.constant, predicted, outputs)


def _predict(model: torch.nn.Module, store: Store, units: int, outputs: int) -> Piece:
    traced = trace(model, "predict", {"q": _sample(units)})
    site, value = read(traced, store, {"q": _argument("q", units)})
    if site.shape != (outputs,):
        raise site.refuse("predict disagrees with outputs", f"return shape {(outputs,)}", f"shape {site.shape}")
    pieces = settle(store, value.pieces, single=True) if isinstance(value, Vector) else []
    piece = pieces[0] if len(pieces) == 1 else None
    if piece is not None and piece.space.kind == "q" and piece.expr != var("q"):
        piece = store.affine(piece)
    if piece is None or store.linear(piece) is None or piece.space.kind not in ("q", "rows"):
        raise site.refuse("predict is not affine in the states", "return R q + b", site.operator)
    return piece


def _line(piece: Piece) -> tuple[float, float]:
    """(s, r) of an affine piece ``s * z + r`` over rows."""
    zero, one = (substitute(piece.expr, {"z": const(x)}).value for x in (0.0, 1.0))
    return one - zero, zero


def _form(store: Store, piece: Piece) -> Affine:
    """An affine piece over rows as the affine form of its value."""
    assert piece.space.affine is not None
    slope, offset = _line(piece)
    form = piece.space.affine
    terms = [Term(t.parameter, t.source, t.transposed, t.scale * slope) for t in form.terms]
    if offset != 0:
        terms.append(Term(store.constant(np.full(form.rows, offset)), "one"))
    return Affine(form.rows, tuple(terms))


def _readout(
    site: Site, store: Store, piece: Piece, constant: float, predicted: Piece | None, outputs: int
) -> tuple[Affine, Expr]:
    """The readout that the cost uses, and the cost over y and target."""
    expr = add(piece.expr, constant / outputs)
    if piece.space.kind not in ("q", "rows") or piece.space.variable not in names(expr):
        raise site.refuse("the cost does not depend on the states", "use q or a readout of it", piece.space)
    if piece.space.length != outputs:
        found = f"{piece.space.length} values"
        raise site.refuse("the cost disagrees with outputs", f"compare y with {outputs} outputs", found)
    extra = names(expr) - {piece.space.variable, "target"}
    if extra:
        raise site.refuse("the cost uses parameters besides the readout", "put them in y = R q + b", sorted(extra))
    if predicted is not None and predicted.space != piece.space:
        remedy = f"use [{piece.space}] in both"
        raise site.refuse("cost and predict use different readouts", remedy, f"[{predicted.space}]")
    if piece.space.kind == "q":
        identity = Term(store.constant(np.eye(outputs)), "q")
        return Affine(outputs, (identity,)), substitute(expr, {"q": var("y")})
    return _rescaled(store, piece, predicted, expr)


def _rescaled(store: Store, piece: Piece, predicted: Piece | None, expr: Expr) -> tuple[Affine, Expr]:
    """The readout in the user's scale: y = s z + r as predict returns it, z itself without one."""
    assert piece.space.affine is not None
    if predicted is None:
        return piece.space.affine, substitute(expr, {"z": var("y")})
    slope, offset = _line(predicted)
    return _form(store, predicted), substitute(expr, {"z": div(sub(var("y"), offset), slope)})
