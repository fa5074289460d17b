"""The causal world model: tensors in, tensors out. No files but checkpoints, no sockets, no threads."""

from world.actions import Actions
from world.card import Axis, Button, WorldCard
from world.errors import ActionError, CheckpointError, LightconeError, ShapeError, StateError
from world.model import Sampler
from world.rollout import Rollout
from world.timeline import RolloutState
from world.world import Start, World

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
