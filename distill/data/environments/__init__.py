"""Environment adapters by name. Owns the choice; an adapter's module is imported only when the adapter is used.

To add an environment, write its module and name it in `ENVIRONMENTS`.
"""

from __future__ import annotations

import os
from importlib import import_module

from distill.data.environments.base import (
    Control,
    Environment,
    EnvironmentSpec,
    Step,
    idle_control,
    random_control,
)

ENVIRONMENTS = {
    "bouncer": ("distill.data.environments.bouncer", "Bouncer"),
    "doom": ("distill.data.environments.doom", "Doom"),
    "pong": ("distill.data.environments.pong", "Pong"),
}
"""Name → (module, builder). The builder is a class or function that takes `height` and `width` as keywords; an
environment with a fixed frame size ignores them. Any other name is a Gymnasium id."""


def make_environment(name: str, *, height: int = 64, width: int = 64) -> Environment:
    """Build the environment `name`: one of `ENVIRONMENTS`, or any Gymnasium id.

    height, width: frame size; `bouncer` and `pong` have a fixed size and ignore it.
    """
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # SDL, where pygame brings it, would swallow SIGTERM
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame would greet once per recording process
    if name not in ENVIRONMENTS:
        from distill.data.environments.gymnasium_env import GymnasiumEnvironment  # it imports gymnasium

        return GymnasiumEnvironment(name, height=height, width=width)
    module, builder = ENVIRONMENTS[name]
    environment: Environment = getattr(import_module(module), builder)(height=height, width=width)
    return environment


__all__ = [
    "ENVIRONMENTS",
    "Control",
    "Environment",
    "EnvironmentSpec",
    "Step",
    "idle_control",
    "make_environment",
    "random_control",
]
