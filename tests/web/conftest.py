"""Fixtures shared by the browser tests: a Chromium and a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.web.driving import find_chromium
from tests.web.serving import ServerProcess


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium, with the driver's packages installed."""
    return find_chromium()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """Run a server process with small random worlds, shared by the scenarios that do not stop it."""
    with ServerProcess() as running:
        yield running
