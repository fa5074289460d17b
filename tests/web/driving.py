"""Runs a scenario of drive.mjs in a real browser and returns its observations.

Owns the driver's command line. Needs Node, the packages of clients/web and a Chromium; without them the tests are
skipped, but fail in CI.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "clients" / "web"
DRIVER = Path(__file__).with_name("drive.mjs")
TIMEOUT_S = 180
OLDEST_NODE = (20, 19)


def unavailable(reason: str) -> None:
    """Fail the test in CI, where the browser is required; skip it elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)  # `make test` requires only Python and make


def node_version() -> tuple[int, ...]:
    """Return the version of the installed Node; () if there is none."""
    if shutil.which("node") is None:
        return ()
    result = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return tuple(int(part) for part in result.stdout.strip().lstrip("v").split("-")[0].split("."))


def find_chromium() -> str:
    """Return the path of a Chromium, installing the driver's packages if they are missing."""
    if shutil.which("npm") is None or node_version() < OLDEST_NODE:
        unavailable(
            f"no Node {OLDEST_NODE} or newer with npm (found {node_version()}); install it to run the browser tests"
        )
    if not (WEB / "node_modules" / "playwright-core").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=WEB, check=True, timeout=TIMEOUT_S)
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        unavailable("no Chromium; install it (`apt-get install chromium`) or set CHROMIUM to its path")
    assert found is not None
    return found


def command(scenario: str, url: str, folder: Path, chromium: str) -> list[str]:
    """Return the driver's command line."""
    return ["node", str(DRIVER), scenario, url, str(folder), chromium]


class Driven(Protocol):
    """A server that a scenario is run against."""

    @property
    def url(self) -> str:
        """Return the address of the page."""

    def log(self) -> str:
        """Return the end of the server's log."""


def drive(scenario: str, server: Driven, folder: Path, chromium: str) -> dict[str, Any]:
    """Run a scenario and return its observations."""
    result = subprocess.run(
        command(scenario, server.url, folder, chromium),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert result.returncode == 0, f"{result.stderr}\nserver:\n{server.log()}"
    seen: dict[str, Any] = json.loads(result.stdout)
    assert seen["problems"] == []
    return seen
