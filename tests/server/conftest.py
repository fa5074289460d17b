"""A server of two tiny worlds for the tests of this folder, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
from hypothesis import settings

from server.config import ServerConfig
from server.wire.protocol import Hello
from tests.server.raw import Raw, RawClient, raw_client
from tests.server.serving import RunningServer, serve
from world.testing import tiny_world

settings.register_profile("no_deadline", deadline=None)  # a slow machine is not a failure
settings.load_profile("no_deadline")

CONFIG = ServerConfig(
    max_sessions=4,
    address_share=1.0,
    resume_s=0.0,  # a lost session ends at once; resuming has its own tests
    headroom=None,
    queue_limit=1,
    num_threads=1,
    handshake_timeout_s=1.0,
    max_image_bytes=64 * 1024,
    max_per_address=1000,  # all tests share one address, and many cause the end of their connection
    address_budget=1e6,
    connections_per_s=1000.0,
)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """Serve both shapes of world, two stages each, with four slots and one place in the queue."""
    with serve(CONFIG, {"pixel": tiny_world, "wan": partial(tiny_world, config="wan")}) as running:
        yield running


@pytest.fixture
def raw(server: RunningServer) -> RawClient:
    """Return a function for `async with raw(hello(...)) as client`."""

    def open_client(hello: Hello | None = None, **options: object) -> AbstractAsyncContextManager[Raw]:
        return raw_client(server.url, hello, **options)

    return open_client
