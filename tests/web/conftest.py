"""What the browser's tests share: a Chromium, and a server to play on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.web.driving import find_chromium
from tests.web.serving import ServerProcess


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium, with the driver's packages in place."""
    return find_chromium()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server process with a small random world, shared by the scenarios that leave it running."""
    with ServerProcess() as running:
        yield running
