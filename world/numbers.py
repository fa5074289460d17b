"""The check of every number that comes from outside: finite, and inside its range. Owns the wording of the refusal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from world.errors import RangeError

if TYPE_CHECKING:  # at run time, the card's numbers are checked without torch
    from torch import nn


def checked(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value`. Raises RangeError, which names `what`, unless it is a finite number in [low, high]."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        raise RangeError(f"{what} {value!r}: must be {_range(low, high, 'a finite number')}")
    return float(value)


def checked_count(value: Any, what: str, low: int = 1, high: int = 2**31 - 1) -> int:
    """Return `value`. Raises RangeError, which names `what`, unless it is an integer in [low, high]."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RangeError(f"{what} {value!r}: must be {_range(low, high, 'an integer')}")
    return value


def check_finite(module: nn.Module, what: str) -> None:
    """Raise RangeError, which names the first such tensor, if a weight or buffer of `module` is not finite."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise RangeError(f"{what}: {count} of {tensor.numel()} values of {name} are not finite")


def _range(low: float, high: float, kind: str) -> str:
    match math.isfinite(low), math.isfinite(high):
        case True, True:
            return f"{kind} from {low:g} to {high:g}"
        case True, False:
            return f"{kind}, {low:g} or more"
        case False, True:
            return f"{kind}, {high:g} or less"
    return kind
