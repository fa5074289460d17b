"""Reloading and closing the page, coming back from a pause, and branches on servers with few slots and little time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from server.config import ServerConfig
from tests.server.serving import RunningServer, fix_tick_times, serve
from tests.web.driving import drive
from world.testing import tiny_world

pytestmark = pytest.mark.browser

CONFIG = ServerConfig(
    max_sessions=1,
    num_threads=1,
    headroom=None,
    hold_s=3600.0,
    reload_s=0.2,
    max_per_address=100,
    address_share=1.0,
    connections_per_s=100.0,
)
"""A session whose connection is lost keeps its slot for an hour; a page that says that it goes away, for a moment."""


@dataclass(frozen=True)
class InProcess:
    """A server in the test's process, as `drive` wants it."""

    running: RunningServer
    url: str

    def log(self) -> str:
        return "in the output of the test"


@contextmanager
def serving(config: ServerConfig) -> Iterator[InProcess]:
    with serve(config, {"tiny-pixel": tiny_world}) as running:
        yield InProcess(running, f"{running.url}/")


def test_a_reloaded_page_takes_its_sessions_back(chromium: str, tmp_path: Path) -> None:
    with serving(replace(CONFIG, max_sessions=2, reload_s=3600.0)) as server:
        seen = drive("reload", server, tmp_path, chromium)
    before, after = seen["before"], seen["after"]
    assert after["runFrame"] >= before["runFrame"], "the run continues"
    assert after["sentSeq"] > before["sentSeq"], "the button that was held before the reload is released"
    assert seen["playing"] == [2, 1], "its slots are held for it, although somebody waits"
    assert seen["paused"]["state"] == "paused", "a paused world stays paused"
    assert seen["paused"]["runFrame"] >= after["runFrame"]
    assert seen["paused"]["playing"] == [2, 1]
    assert seen["waiting"] == "queued"
    assert (before["stored"], after["stored"]) == (0, 0), "a duplicated tab would take the session away"


def test_a_closed_page_frees_its_slot_at_once_and_its_session_can_be_taken_back(chromium: str, tmp_path: Path) -> None:
    with serving(CONFIG) as server:
        seen = drive("close", server, tmp_path, chromium)
    assert "number 1 in the queue" in seen["notice"]
    assert seen["playing"] == [1, 0]
    assert all(after >= before for before, after in seen["runFrames"]), "who goes back goes on where they were"
    assert "true" in seen["kept"], "the browser had kept the page at least once"


def test_a_branch_without_a_slot_says_what_would_have_to_end(chromium: str, tmp_path: Path) -> None:
    with serving(CONFIG) as server:
        seen = drive("branchWithoutSlot", server, tmp_path, chromium)
    assert "plays at once if you end the world beside it" in seen["notice"]
    assert seen["stages"] == [2, 1, 1]
    assert seen["playing"] == [1, 0]
    assert seen["shown"]


def test_a_player_who_comes_back_from_a_pause_is_told_to_wait_while_others_play(chromium: str, tmp_path: Path) -> None:
    with serving(replace(CONFIG, max_sessions=4, headroom=0.8)) as server:
        fix_tick_times(server.running.engine, "tiny-pixel", {1: 8.0, 2: 100.0, 3: 100.0, 4: 100.0})
        seen = drive("comeBack", server, tmp_path, chromium)
    assert "Others are playing now" in seen["notice"]
    assert "number 1 in the queue" in seen["notice"]


def test_two_branches_take_turns_where_there_is_time_for_one(chromium: str, tmp_path: Path) -> None:
    with serving(replace(CONFIG, max_sessions=4, headroom=0.8)) as server:
        fix_tick_times(server.running.engine, "tiny-pixel", {1: 8.0, 2: 100.0, 3: 100.0, 4: 100.0})
        seen = drive("takeTurns", server, tmp_path, chromium)
    assert "Pausing the world beside it makes room" in seen["notice"]
    assert seen["other"] == "paused"
    assert seen["stages"] == 2
