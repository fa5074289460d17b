"""A server of two tiny worlds for the tests of this folder, and connections to it."""

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

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")

CONFIG = ServerConfig(
    max_sessions=4,
    resume_s=0.0,  # who is gone is gone at once: resuming has tests of its own
    headroom=None,
    queue_limit=1,
    num_threads=1,
    handshake_timeout_s=1.0,
    max_image_bytes=64 * 1024,
    max_per_address=1000,  # the tests are one address, and many of them end by their own fault
    connections_per_s=1000.0,
)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """Both shapes of world, two stages each; slots for four players and a place for one who waits."""
    with serve(CONFIG, {"pixel": tiny_world, "wan": partial(tiny_world, config="wan")}) as running:
        yield running


@pytest.fixture
def raw(server: RunningServer) -> RawClient:
    """`async with raw(hello(...)) as client`."""

    def opened(hello: Hello | None = None, **options: object) -> AbstractAsyncContextManager[Raw]:
        return raw_client(server.url, hello, **options)

    return opened
