"""`lightcone play` as a process: it opens the browser when the page is ready, and not before."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.server.command_line import serving
from world.testing import tiny_world

BROWSER = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1] + "/readyz") as reply:
    open(sys.argv[2], "w").write(f"{sys.argv[1]} {reply.status}")
"""


def test_the_browser_opens_when_the_world_is_warm(tmp_path: Path) -> None:
    tiny_world().save(tmp_path / "tiny")
    (tmp_path / "browser.py").write_text(BROWSER, encoding="utf-8")
    seen = tmp_path / "seen"
    browser = f"{sys.executable} {tmp_path / 'browser.py'} %s {seen}"
    with serving("play", str(tmp_path / "tiny"), env={"BROWSER": browser}) as (_, url):
        deadline = time.monotonic() + 20
        while not seen.exists() or not seen.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline, "the browser was not opened"
            time.sleep(0.05)
        assert seen.read_text(encoding="utf-8") == f"{url} 200"
