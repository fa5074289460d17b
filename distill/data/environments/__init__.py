"""Environment adapters, by name. Owns the choice only; adapters are imported when asked for."""

from __future__ import annotations

from distill.data.environments.base import (
    Control,
    Environment,
    EnvironmentSpec,
    Step,
    idle_control,
    random_control,
)


def make_environment(name: str, *, height: int = 64, width: int = 64) -> Environment:
    """`pong`, `bouncer`, `doom`, or any Gymnasium id (`height`, `width` apply to the last two only)."""
    if name == "pong":
        from distill.data.environments.pong import Pong

        return Pong()
    if name == "bouncer":
        from distill.data.environments.bouncer import Bouncer

        return Bouncer()
    if name == "doom":
        from distill.data.environments.doom import Doom

        return Doom(height=height, width=width)
    from distill.data.environments.gymnasium_env import GymnasiumEnvironment

    return GymnasiumEnvironment(name, height=height, width=width)


__all__ = [
    "Control",
    "Environment",
    "EnvironmentSpec",
    "Step",
    "idle_control",
    "make_environment",
    "random_control",
]
