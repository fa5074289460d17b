"""Names of checkpoint format 1 that differ from the code's. Owns the tables; no other module knows the former names.

Checkpoints and datasets keep the names of format 1 on disk, so that old and new files work with old and new programs.
(Stored sessions do not: `server/state/format_1.py` reads the earlier ones.) All functions are pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")

FIELDS = {"tracked": "state_variables"}
"""Config fields: name on disk → name in the code."""

WEIGHTS = {"tracker.": "state_estimator."}
"""Prefixes of weight names: on disk → in the code."""

CLASSES = {"ConvolutionalCodecConfig": "CodecConfig", "StateVariable": "Tracked"}
"""Config classes: name in the code → name that `former_repr` gives them."""

ADDED = {"flow_map": False}
"""Config fields that later versions have added, with the value that means as much as their absence."""


def fields_from_disk(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the fields of a config that was read from JSON; names of the code pass unchanged."""
    return {FIELDS.get(name, name): value for name, value in entries.items()}


def fields_to_disk(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Invert `fields_from_disk`, without settings that are as if they did not exist."""
    entries = {name: value for name, value in entries.items() if name not in ADDED or ADDED[name] != value}
    on_disk = {name: former for former, name in FIELDS.items()}
    return {on_disk.get(name, name): value for name, value in entries.items()}


def weights_from_disk(weights: Mapping[str, _T]) -> dict[str, _T]:
    """Rename weights that were read from a file; names of the code pass unchanged."""
    return {_swap(name, WEIGHTS): value for name, value in weights.items()}


def weights_to_disk(weights: Mapping[str, _T]) -> dict[str, _T]:
    """Invert `weights_from_disk`."""
    on_disk = {prefix: former for former, prefix in WEIGHTS.items()}
    return {_swap(name, on_disk): value for name, value in weights.items()}


def former_repr(value: object) -> str:
    """Return `repr(value)` as format 1 has it: configs with their former class and field names, nested in any way."""
    if is_dataclass(value) and not isinstance(value, type):
        shown = fields_to_disk({field.name: getattr(value, field.name) for field in fields(value)})
        inside = ", ".join(f"{name}={former_repr(part)}" for name, part in shown.items())
        return f"{CLASSES.get(type(value).__name__, type(value).__name__)}({inside})"
    if isinstance(value, tuple):
        return f"({', '.join(map(former_repr, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _swap(name: str, prefixes: Mapping[str, str]) -> str:
    for prefix, other in prefixes.items():
        if name.startswith(prefix):
            return other + name.removeprefix(prefix)
    return name
