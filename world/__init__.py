"""The causal world model: tensors in, tensors out. No files but checkpoints, no sockets, no threads."""

from world.actions import Actions
from world.card import Axis, Button, WorldCard
from world.checkpoint import Start, World
from world.errors import ActionError, CheckpointError, LightconeError, ShapeError, StateError
from world.rollout.networks import Sampler
from world.rollout.rollout import Rollout
from world.rollout.timeline import RolloutState

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
