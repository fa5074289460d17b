"""The page in a real browser against a real server: keys, touch, pause, step, restart, errors, reconnecting.

drive.mjs runs one scenario per call with Playwright's core library and reports its observations; these tests check
them.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.web.driving import TIMEOUT_S, command, drive
from tests.web.serving import ServerProcess

pytestmark = pytest.mark.browser

PICTURES_PER_STEP = 12


def test_a_held_key_changes_the_picture(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("keyboard", server, tmp_path, chromium)
    before, holding = seen["before"], seen["holding"]
    assert before["sentSeq"] == 0
    assert seen["heldButtons"] == ["up"]
    assert holding["sentSeq"] == 1, "a held key sends one act, however often the key repeats"
    assert holding["appliedSeq"] == 1
    assert holding["lastFrameIndex"] > before["lastFrameIndex"]
    assert holding["canvas"] != before["canvas"]
    assert holding["fps"] > 1
    assert 0 < holding["actionToPhotonMs"] < 5000
    assert seen["released"]["appliedSeq"] == 2
    assert (tmp_path / "desktop.png").stat().st_size > 10_000


def test_losing_the_focus_releases_the_keys(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("keyboard", server, tmp_path, chromium)
    assert seen["blurred"]["sentSeq"] == seen["released"]["sentSeq"] + 2, "one act for the press, one for the release"
    assert seen["blurred"]["appliedSeq"] == seen["blurred"]["sentSeq"]
    assert seen["blurred"]["held"] == 0
    assert seen["later"]["framesPresented"] > seen["blurred"]["framesPresented"]


def test_pause_stops_the_picture_and_step_advances_it_by_one_chunk(
    server: ServerProcess, chromium: str, tmp_path: Path
) -> None:
    seen = drive("pauseAndStep", server, tmp_path, chromium)
    paused, stepped, again = seen["paused"], seen["stepped"], seen["steppedByKey"]
    assert [paused["state"], stepped["state"], again["state"]] == ["paused"] * 3
    assert stepped["lastFrameIndex"] == paused["lastFrameIndex"] + 1
    assert again["lastFrameIndex"] == stepped["lastFrameIndex"] + 1
    assert seen["playing"]["lastFrameIndex"] > again["lastFrameIndex"]


def test_a_seed_repeats_the_pictures_and_an_action_changes_them(
    server: ServerProcess, chromium: str, tmp_path: Path
) -> None:
    seen = drive("sameStart", server, tmp_path, chromium)
    assert seen["runFrames"] == [0, 6] * 4
    assert seen["idle"] == seen["idleAgain"]
    assert seen["up"] != seen["idle"]
    assert seen["down"] not in {seen["up"], seen["idle"]}
    assert seen["starts"] > 1
    assert seen["chosenStart"] == "1"


def test_a_finger_holds_a_button_on_a_phone(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("touch", server, tmp_path, chromium)
    assert seen["held"] == ["up"]
    assert seen["holding"]["appliedSeq"] == 1
    assert seen["released"]["appliedSeq"] == 2
    assert seen["released"]["held"] == 0
    assert seen["sidewaysScroll"] == 0
    assert (tmp_path / "phone.png").stat().st_size > 10_000


def test_a_gamepad_holds_the_same_buttons(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("gamepad", server, tmp_path, chromium)
    assert seen["dpad"] == ["up"]
    assert seen["stick"] == ["down"]
    assert seen["nothing"] == [], "a slightly moved stick holds nothing"


def test_a_world_with_several_pictures_per_step_shows_them_one_after_another(
    server: ServerProcess, chromium: str, tmp_path: Path
) -> None:
    seen = drive("otherWorld", server, tmp_path, chromium)
    assert seen["address"] == server.worlds[1]
    assert seen["pressed"] == [server.worlds[1]]
    paused, stepped = seen["paused"], seen["stepped"]
    assert stepped["lastFrameIndex"] - paused["lastFrameIndex"] == PICTURES_PER_STEP
    shown = stepped["framesPresented"] - paused["framesPresented"]
    assert PICTURES_PER_STEP // 2 < shown <= PICTURES_PER_STEP, "all of them, except those that a busy machine drops"
    assert seen["scrubbed"] == seen["scrubbedLater"], "the rest of a chunk is not drawn over a past frame"
    assert seen["scrubbed"] != seen["live"]
    assert seen["stagesAfterSwitch"] == 1, "a branch requested before the switch is not opened after it"
    assert not seen["toastAfterSwitch"]


DEVICES = pytest.mark.parametrize("device", ["desktop", "phone"])


@DEVICES
def test_the_timeline_rewinds_and_plays_from_there(
    server: ServerProcess, chromium: str, tmp_path: Path, device: str
) -> None:
    seen = drive(f"timeline@{device}", server, tmp_path, chromium)
    scrubbed, later, after = seen["scrubbed"], seen["oneLater"], seen["after"]
    assert seen["sentFromSlider"] == 2, "the focused slider leaves the world's keys alone: one act down, one up"
    assert scrubbed["state"] == "paused"
    assert scrubbed["scrubbedTo"] < scrubbed["runFrame"]
    assert str(scrubbed["scrubbedTo"]) in scrubbed["badge"]
    assert later["scrubbedTo"] == scrubbed["scrubbedTo"] + 1
    assert later["canvas"] != scrubbed["canvas"]
    assert after["scrubbedTo"] is None
    assert after["hidden"]
    assert after["run"] == scrubbed["run"] + 1
    assert after["runFrame"] >= scrubbed["scrubbedTo"]
    assert seen["continued"]["runFrame"] > after["runFrame"]


@DEVICES
def test_two_branches_are_shown_side_by_side_and_steered_separately_or_together(
    server: ServerProcess, chromium: str, tmp_path: Path, device: str
) -> None:
    seen = drive(f"branching@{device}", server, tmp_path, chromium)
    assert seen["toolKeeps"] == {"steered": 1, "focus": 1, "said": "Paused"}, "a tool acts on the steered stage"
    assert seen["oldest"] >= seen["before"]["runFrame"], "a branch can be rewound to its start and no further"
    assert seen["badgeOn"] == 1
    assert seen["branch"]["runFrame"] > seen["before"]["runFrame"]
    assert seen["branch"]["sentSeq"] == 2, "a branch is a separate session: one act down, one up"
    assert len(seen["pictures"]) == 2
    assert seen["pictures"][0] != seen["pictures"][1]
    assert (seen["steered"], seen["steeredBoth"]) == (1, 2)
    assert seen["first"]["sentSeq"] == seen["before"]["sentSeq"] + 2, "steered only together with the branch"
    assert seen["stages"] == 1
    assert seen["closed"] == {"said": "Playing", "disabled": 0, "focus": 0}
    assert seen["after"]["framesPresented"] > seen["first"]["framesPresented"]


@DEVICES
def test_a_world_starts_from_a_file_and_from_the_camera(
    server: ServerProcess, chromium: str, tmp_path: Path, device: str
) -> None:
    seen = drive(f"upload@{device}", server, tmp_path, chromium)
    assert [abs(a - b) <= 6 for a, b in zip(seen["fromFile"], (200, 60, 30, 255), strict=True)] == [True] * 4
    assert "not a picture" in seen["rejected"]
    assert seen["fromCamera"] != seen["fromFile"]
    assert seen["cameras"] == [False], "opened once, and turned off again"
    assert seen["sentFromDialog"] == 0


@DEVICES
def test_a_recorded_clip_plays(server: ServerProcess, chromium: str, tmp_path: Path, device: str) -> None:
    seen = drive(f"record@{device}", server, tmp_path, chromium)
    assert seen["label"].startswith("Stop")
    assert seen["labelAfter"] == "Record clip"
    assert seen["name"] == f"{server.worlds[0]}.webm"
    assert seen["bytes"] > 1000
    assert seen["video"]["height"] >= 480
    assert seen["bytesWithoutRequests"] > 1000


@DEVICES
def test_a_shared_link_and_a_saved_take_give_the_same_frames(
    server: ServerProcess, chromium: str, tmp_path: Path, device: str
) -> None:
    seen = drive(f"replay@{device}", server, tmp_path, chromium)
    original = seen["original"]
    assert original["runFrame"] > 30
    for again in (seen["fromLink"], seen["fromFile"]):
        assert again["runFrame"] == original["runFrame"]
        assert again["canvas"] == original["canvas"]
    assert "Playing a take" in seen["progress"]
    assert seen["linkLength"] < 2000
    assert seen["continued"]["runFrame"] > original["runFrame"]
    assert seen["stateDuringTake"] == "Playing a take"
    assert seen["restarted"]["replay"] is None
    assert seen["restartedLater"]["sentSeq"] == seen["restarted"]["sentSeq"], "a restart ends the take"
    assert seen["restartedLater"]["runFrame"] > seen["restarted"]["runFrame"]
    assert "take cannot be read" in seen["notice"]
    assert seen["recovered"] == {"address": "", "notice": False}


def test_the_mouse_moves_an_axis_of_the_world(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("look", server, tmp_path, chromium)
    assert seen["after"]["sentSeq"] > seen["before"]["sentSeq"]
    assert seen["after"]["appliedSeq"] == seen["after"]["sentSeq"]
    assert "mouse" in seen["hint"]
    assert seen["lookedWhilePaused"]["sentSeq"] == seen["paused"]["sentSeq"], "the mouse moves nothing while paused"
    assert seen["speed"] == "0.25", "a branch keeps the speed"
    assert seen["enlarged"] == ["pixelated", "auto"], "as each world's card specifies"


def test_an_unknown_world_is_reported_by_name(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("unknownWorld", server, tmp_path, chromium)
    assert 'no world "atlantis"' in seen["notice"]
    assert "Choose a world" in seen["notice"]


def test_the_page_reconnects_to_a_restarted_server(chromium: str, tmp_path: Path) -> None:
    with ServerProcess() as server:
        browser = subprocess.Popen(
            command("reconnect", server.url, tmp_path, chromium),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert browser.stderr is not None
            assert browser.stderr.readline() == "playing\n"
            server.kill()
            assert browser.stderr.readline() == "lost\n"
            server.start()
            out, err = browser.communicate(timeout=TIMEOUT_S)
        finally:
            browser.kill()
    assert browser.returncode == 0, err
    seen = json.loads(out)
    assert "No connection" in seen["notice"]
    assert seen["after"]["state"] == "playing"
    assert seen["after"]["framesPresented"] > seen["before"]["framesPresented"]
    assert seen["toast"] == "This branch is no longer available.", (
        "the restarted server lost it; the first stage remains"
    )
    assert seen["disabled"] == 0
    assert seen["speed"] == "0.5"
