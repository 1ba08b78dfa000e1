"""What `Session.fit` is called with."""

from echolith.compiler.errors import RangeError
from echolith.compiler.scalars import real, whole
from echolith.host.rates import SCHEDULES

__all__ = ["check_settings"]


def check_settings(epochs: object, batch_size: object, learning_rate: object, momentum: object, schedule: object,
                   seed: object, accumulate: object, weight_decay: object, progress: object) -> None:
    """Raises RangeError for settings that are none."""
    if whole(epochs, 1) is None or whole(batch_size, 1) is None:
        raise RangeError(f"epochs and batch_size must be whole numbers, at least 1, not {epochs!r} and {batch_size!r}")
    if whole(accumulate, 1) is None:
        raise RangeError(f"accumulate must be a whole number of batches, at least 1, not {accumulate!r}")
    if (rate := real(learning_rate)) is None or rate < 0:
        raise RangeError(f"learning_rate must be a finite number, not negative, not {learning_rate!r}")
    if (kept := real(momentum)) is None or not 0 <= kept < 1:
        raise RangeError(f"momentum must be in [0, 1), not {momentum!r}")
    if (decay := real(weight_decay)) is None or decay < 0:
        raise RangeError(f"weight_decay must be a finite number, not negative, not {weight_decay!r}")
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        raise RangeError(f"schedule must be one of {', '.join(SCHEDULES)}, not {schedule!r}")
    if whole(seed, 0) is None:
        raise RangeError(f"seed must be a whole number, not negative, not {seed!r}")
    if progress is not None and not callable(progress):
        raise RangeError(f"progress must be a function of updates done, updates in all and loss, or None, not "
                         f"{progress!r:.60}")
