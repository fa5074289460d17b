"""Rollouts: many sessions of one world generated together, chunk by chunk, over a key/value arena."""

from world.rollout.rollout import Rollout

__all__ = ["Rollout"]
