"""Numbers given on the command line. Owns their bounds, so that a wrong one is refused before any work."""

from __future__ import annotations

import argparse
import math

from world.errors import LightconeError


def require_at_least(least: int, args: argparse.Namespace, *names: str) -> None:
    """Raise LightconeError for the first of these arguments, of those that are given, that is below `least`."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < least:
            raise LightconeError(f"{_flag(name)} {value}: must be at least {least}")


def require_positive(args: argparse.Namespace, name: str) -> None:
    """Raise LightconeError if an argument is given and not a finite number above 0."""
    value = getattr(args, name)
    if value is not None and not 0 < value < math.inf:
        raise LightconeError(f"{_flag(name)} {value:g}: must be a finite number above 0")


def require_multiple(factor: int, args: argparse.Namespace, *names: str) -> None:
    """Raise LightconeError for the first of these arguments that is not a positive multiple of `factor`."""
    for name in names:
        value = getattr(args, name)
        if value < factor or value % factor:
            nearest = max(factor, round(value / factor) * factor)
            raise LightconeError(f"{_flag(name)} {value}: must be a multiple of {factor}, such as {nearest}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
