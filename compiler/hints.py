"""What is probably meant by data of another shape."""

__all__ = ["input_hint", "target_hint"]

_Shape = tuple[int, ...]


def input_hint(shape: _Shape, inputs: int, steps: int | None = None) -> str:
    """For X (batch, inputs), (batch, steps) or (steps, inputs); ``steps`` is None where any number will do."""
    if len(shape) == 2 and inputs == 1 and shape[1] != 1:
        return "; write X[:, :, None] for rows of one input"
    if len(shape) != 2 or shape[1] != inputs:
        return ""
    meant = ["X[:, None] for samples of one row"] * (steps in (None, 1))
    meant += ["X[None] for one sample"] * (steps in (None, shape[0]))
    return f"; write {', '.join(meant)}" if meant else ""


def target_hint(shape: _Shape, kind: str, outputs: int, every: bool) -> str:
    """For Y of class numbers where the cost takes one value per output, or the other way round, and for a missing axis.

    ``kind`` is `costs.Cost.targets`, ``every`` says that the cost is at every step."""
    axes = 1 + every
    if kind == "shares" and len(shape) == axes:
        return "; for class numbers write y.long() in the cost"
    if kind == "classes" and len(shape) == axes + 1:
        return "; the cost takes class numbers, e.g. Y.argmax(-1)"
    if kind == "values" and outputs == 1 and len(shape) == axes:
        return "; write Y[..., None] for one output"
    if every and len(shape) == axes + (kind != "classes") - 1:
        return '; for one target per sample use cost_at="last"'
    return ""
