"""Driving the page in a real browser: what one scenario of drive.mjs saw, and whether there is a browser at all.

Owns the driver's command line. Needs Node, the packages of clients/web and a Chromium; without them the tests skip, but
in CI they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.web.serving import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "clients" / "web"
DRIVER = Path(__file__).with_name("drive.mjs")
TIMEOUT_S = 180
OLDEST_NODE = (20, 19)


def unavailable(reason: str) -> None:
    """Skips on a developer's machine; fails in CI, where the browser is part of what is promised."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)  # Node and Chromium are no part of `make test`: Python and make must do


def node_version() -> tuple[int, ...]:
    """The installed Node's version; () where there is none."""
    if shutil.which("node") is None:
        return ()
    done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return tuple(int(part) for part in done.stdout.strip().lstrip("v").split("-")[0].split("."))


def find_chromium() -> str:
    """Path of a Chromium, with the driver's packages in place."""
    if shutil.which("npm") is None or node_version() < OLDEST_NODE:
        unavailable(
            f"no Node {OLDEST_NODE} or newer with npm (found {node_version()}); install one to drive the browser"
        )
    if not (WEB / "node_modules" / "playwright-core").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=WEB, check=True, timeout=TIMEOUT_S)
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        unavailable("no Chromium; install one (`apt-get install chromium`) or name it in CHROMIUM")
    assert found is not None
    return found


def command(scenario: str, url: str, folder: Path, chromium: str) -> list[str]:
    """The driver's command line."""
    return ["node", str(DRIVER), scenario, url, str(folder), chromium]


def drive(scenario: str, server: ServerProcess, folder: Path, chromium: str) -> dict[str, Any]:
    """Runs one scenario and returns what the browser saw."""
    done = subprocess.run(
        command(scenario, server.url, folder, chromium),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\nserver:\n{server.log()}"
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["problems"] == []
    return seen
