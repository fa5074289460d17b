"""Sessions of nobody, to time steps with. They share the model, and nothing else, with those of the players."""

from __future__ import annotations

import time

from world import RolloutState, World
from world.rollout.step_threads import StepThreads, ThreadSettings, using_threads


class TimedSessions:
    """`batch` sessions that begin from a copy of `sample`."""

    def __init__(self, world: World, sample: RolloutState, batch: int) -> None:
        self.rollout = world.rollout(batch)
        self.rollout.threads = StepThreads(ThreadSettings(adapts=False), world.device)
        for slot in range(batch):
            self.rollout.restore(slot, sample)
        self._held = world.actions([[]] * batch)

    def step_ms(self, num_threads: int) -> float:
        """Run one step with this number of threads and return its milliseconds."""
        with using_threads(num_threads):
            began = time.perf_counter()
            self.rollout.step_latents(self._held)
            return (time.perf_counter() - began) * 1e3
