"""Both test configs for every test with the fixture `config_name`; one thread, so that parallel tests do not slow each
other down."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import settings

from world import World
from world.testing import CONFIGS, tiny_world

settings.register_profile("busy machine", deadline=None)  # a slow example is not a failure
settings.load_profile("busy machine")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=sorted(CONFIGS))
def config_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(config_name: str) -> World:
    return tiny_world(config=config_name)


@pytest.fixture
def short_world(config_name: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world with a window of two chunks, so that few steps wrap the ring: Triton's interpreter is slow."""
    codec, config = CONFIGS[config_name]
    short = replace(config, window_frames=2 * config.chunk_frames)
    monkeypatch.setitem(CONFIGS, "short", (codec, short))
    return tiny_world(config="short")
