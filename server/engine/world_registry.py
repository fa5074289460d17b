"""The worlds of one server process. Owns their loading, warm-up and public descriptions.

Loading runs on the model thread; descriptions can be read from any thread once loading is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from server.config import ServerConfig
from server.engine.model_runner import ModelRunner, OnThread, WorldLoader, share_cores, world_info
from server.engine.previews import Previews, TryDecode
from server.errors import ModelFailedError, UnknownWorldError
from server.state.state_owner import StateOwner
from server.wire.protocol import WorldInfo

logger = logging.getLogger(__name__)


class WorldRegistry:
    """All served worlds. loaders: by the name that a world is served under."""

    def __init__(self, config: ServerConfig, loaders: Mapping[str, WorldLoader]) -> None:
        self._config = config
        self._loaders = dict(loaders)
        self._runners: dict[str, ModelRunner] = {}
        self._infos: dict[str, WorldInfo] = {}
        self.previews = Previews({}, lambda _work: None)

    def load(self, on_decode_thread: OnThread, try_decode: TryDecode, is_stopping: Callable[[], bool]) -> None:
        """Load and warm up all worlds, one after the other, but no further one while `is_stopping`. try_decode: for
        `Previews`."""
        worlds = {name: loader() for name, loader in self._loaders.items() if not is_stopping()}
        most = [world.threads.most for world in worlds.values() if world.threads.most]
        share_cores(self._config.num_threads or max(most, default=None), on_decode_thread)
        for name, world in worlds.items():
            if is_stopping():
                return
            began = time.perf_counter()
            runner = ModelRunner(
                world,
                self._config.max_sessions,
                self._config.max_batch,
                self._config.buckets,
                timeline_frames=self._config.timeline_frames,
                session_bytes=self._config.past_bytes,
            )
            runner.warm_up(on_decode_thread)
            self._runners[name] = runner
            timeline_frames = runner.memory.timeline_frames
            self._infos[name] = world_info(name, world).model_copy(update={"timeline_frames": timeline_frames})
            latency_ms = {size: round(ms, 1) for size, ms in runner.latency_ms.items()}
            logger.info("%s warm in %.1f s; ms by batch: %s", name, time.perf_counter() - began, latency_ms)
        self.previews = Previews(
            {name: (runner, self._infos[name]) for name, runner in self._runners.items()}, try_decode
        )

    @property
    def worlds(self) -> list[WorldInfo]:
        """Return all served worlds in the order of the settings."""
        return list(self._infos.values())

    def info(self, name: str) -> WorldInfo:
        """Return a served world's description. Raise UnknownWorldError."""
        if name not in self._infos:
            raise UnknownWorldError(f"world {name!r}: this server has {', '.join(self._infos)}")
        return self._infos[name]

    def state_owner(self, name: str) -> StateOwner:
        """Return what can restore the states of a world's sessions."""
        return self._runners[name]

    @property
    def latency_s(self) -> Mapping[str, Mapping[int, float]]:
        """Return seconds per step and decoding as they are now, by world and batch size."""
        runners = list(self._runners.items())  # while worlds are loaded, there are more and more
        return {name: {size: ms / 1e3 for size, ms in runner.latency_ms.items()} for name, runner in runners}

    @property
    def threads_used(self) -> Mapping[str, Mapping[int, float]]:
        """Return how many threads the newest step used, by world and batch size."""
        return {name: dict(runner.threads_used) for name, runner in list(self._runners.items())}

    @property
    def runners(self) -> Mapping[str, ModelRunner]:
        """Return the worlds' runners by name."""
        return self._runners

    def runner(self, name: str) -> ModelRunner:
        return self._runners[name]

    def preview(self, name: str) -> list[NDArray[np.uint8]] | None:
        """Return two seconds of the world, generated here, uint8 `h w 3` each; None until they are finished. Raise
        UnknownWorldError."""
        self.info(name)
        return self.previews.get(name)


@contextmanager
def failures_of(world: str) -> Iterator[None]:
    """Raise ModelFailedError for `world` from whatever is raised inside."""
    try:
        yield
    except Exception as exc:  # a model may raise anything; the original is the cause, with its traceback
        raise ModelFailedError(world) from exc
