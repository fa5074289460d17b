"""The causal world model: tensors in, tensors out. Owns no files but checkpoints, no sockets and no threads.

The names below are loaded when they are first used, so that `import world.card` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from world.actions import Actions
    from world.card import Axis, Button, WorldCard
    from world.checkpoint import World
    from world.errors import ActionError, CheckpointError, LightconeError, ShapeError, StateError
    from world.rollout.networks import Sampler
    from world.rollout.rollout import Rollout
    from world.rollout.timeline import RolloutState
    from world.starts import Start

__all__ = [
    "ActionError",
    "Actions",
    "Axis",
    "Button",
    "CheckpointError",
    "LightconeError",
    "Rollout",
    "RolloutState",
    "Sampler",
    "ShapeError",
    "Start",
    "StateError",
    "World",
    "WorldCard",
]

_MODULES = {
    "world.actions": ("Actions",),
    "world.card": ("Axis", "Button", "WorldCard"),
    "world.checkpoint": ("World",),
    "world.starts": ("Start",),
    "world.errors": ("ActionError", "CheckpointError", "LightconeError", "ShapeError", "StateError"),
    "world.rollout.networks": ("Sampler",),
    "world.rollout.rollout": ("Rollout",),
    "world.rollout.timeline": ("RolloutState",),
}


def __getattr__(name: str) -> Any:
    """Load a public name, or a module of the package, on first use (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(import_module(module), name)
            globals()[name] = value
            return value
    if name.startswith("_") or find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
