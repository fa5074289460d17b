"""The page in a real browser against the real server: keys, touch, pause, step, restart, errors, reconnecting.

Chromium is driven by Playwright's core library (drive.mjs, one scenario a run), which reports what it saw; the judging
is done here.
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


def test_a_held_key_reaches_the_picture(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("keyboard", server, tmp_path, chromium)
    before, holding = seen["before"], seen["holding"]
    assert before["sentSeq"] == 0
    assert seen["heldButtons"] == ["up"]
    assert holding["sentSeq"] == 1, "a held key is one act, however often the key repeats"
    assert holding["appliedSeq"] == 1
    assert holding["lastFrameIndex"] > before["lastFrameIndex"]
    assert holding["canvas"] != before["canvas"]
    assert holding["fps"] > 1
    assert 0 < holding["actionToPhotonMs"] < 5000
    assert seen["released"]["appliedSeq"] == 2
    assert (tmp_path / "desktop.png").stat().st_size > 10_000


def test_a_lost_focus_lets_go_of_the_keys(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("keyboard", server, tmp_path, chromium)
    assert seen["blurred"]["sentSeq"] == seen["released"]["sentSeq"] + 2, "one act for the key, one for letting go"
    assert seen["blurred"]["appliedSeq"] == seen["blurred"]["sentSeq"]
    assert seen["blurred"]["held"] == 0
    assert seen["later"]["framesPresented"] > seen["blurred"]["framesPresented"]


def test_pause_holds_the_picture_and_step_moves_it_by_one_chunk(
    server: ServerProcess, chromium: str, tmp_path: Path
) -> None:
    seen = drive("pauseAndStep", server, tmp_path, chromium)
    paused, stepped, again = seen["paused"], seen["stepped"], seen["steppedByKey"]
    assert [paused["state"], stepped["state"], again["state"]] == ["paused"] * 3
    assert stepped["lastFrameIndex"] == paused["lastFrameIndex"] + 1
    assert again["lastFrameIndex"] == stepped["lastFrameIndex"] + 1
    assert seen["playing"]["lastFrameIndex"] > again["lastFrameIndex"]


def test_one_seed_repeats_and_an_action_changes_the_picture(
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
    assert seen["nothing"] == [], "a thumb resting on the stick holds nothing"


def test_a_world_with_several_pictures_per_step_shows_them_one_after_another(
    server: ServerProcess, chromium: str, tmp_path: Path
) -> None:
    seen = drive("otherWorld", server, tmp_path, chromium)
    assert seen["address"] == server.worlds[1]
    assert seen["pressed"] == [server.worlds[1]]
    paused, stepped = seen["paused"], seen["stepped"]
    assert stepped["lastFrameIndex"] - paused["lastFrameIndex"] == PICTURES_PER_STEP
    shown = stepped["framesPresented"] - paused["framesPresented"]
    assert PICTURES_PER_STEP // 2 < shown <= PICTURES_PER_STEP, "all of them, but for what a busy machine drops"
    assert seen["scrubbed"] == seen["scrubbedLater"], "the rest of a chunk does not go over a frame of the past"
    assert seen["scrubbed"] != seen["live"]
    assert seen["stagesAfterSwitch"] == 1, "a branch asked for before belongs to the world before"
    assert not seen["toastAfterSwitch"]


DEVICES = pytest.mark.parametrize("device", ["desktop", "phone"])


@DEVICES
def test_one_goes_back_on_the_timeline_and_plays_on_from_there(
    server: ServerProcess, chromium: str, tmp_path: Path, device: str
) -> None:
    seen = drive(f"timeline@{device}", server, tmp_path, chromium)
    scrubbed, later, after = seen["scrubbed"], seen["oneLater"], seen["after"]
    assert seen["sentFromSlider"] == 2, "the world's keys reach it past the slider: one act down, one up"
    assert scrubbed["state"] == "paused"
    assert scrubbed["scrubbedTo"] < scrubbed["runFrame"]
    assert str(scrubbed["scrubbedTo"]) in scrubbed["badge"]
    assert later["scrubbedTo"] == scrubbed["scrubbedTo"] + 1
    assert later["canvas"] != scrubbed["canvas"]
    assert after["scrubbedTo"] is None
    assert after["hidden"]
    assert after["run"] == scrubbed["run"] + 1
    assert after["runFrame"] >= scrubbed["scrubbedTo"]
    assert seen["onward"]["runFrame"] > after["runFrame"]


@DEVICES
def test_two_branches_stand_side_by_side_and_are_steered_apart_or_together(
    server: ServerProcess, chromium: str, tmp_path: Path, device: str
) -> None:
    seen = drive(f"branching@{device}", server, tmp_path, chromium)
    assert seen["toolKeeps"] == {"steered": 1, "focus": 1, "said": "Paused"}, "a tool acts on the steered stage"
    assert seen["oldest"] >= seen["before"]["runFrame"], "a branch goes back to its beginning and no further"
    assert seen["badgeOn"] == 1
    assert seen["branch"]["runFrame"] > seen["before"]["runFrame"]
    assert seen["branch"]["sentSeq"] == 2, "a branch is a session of its own: one act down, one up"
    assert len(seen["pictures"]) == 2
    assert seen["pictures"][0] != seen["pictures"][1]
    assert (seen["steered"], seen["steeredBoth"]) == (1, 2)
    assert seen["first"]["sentSeq"] == seen["before"]["sentSeq"] + 2, "steered together with the branch only"
    assert seen["stages"] == 1
    assert seen["closed"] == {"said": "Playing", "disabled": 0, "focus": 0}
    assert seen["after"]["framesPresented"] > seen["first"]["framesPresented"]


@DEVICES
def test_a_world_starts_from_a_file_and_from_the_camera(
    server: ServerProcess, chromium: str, tmp_path: Path, device: str
) -> None:
    seen = drive(f"upload@{device}", server, tmp_path, chromium)
    assert [abs(a - b) <= 6 for a, b in zip(seen["fromFile"], (200, 60, 30, 255), strict=True)] == [True] * 4
    assert "not a picture" in seen["refused"]
    assert seen["fromCamera"] != seen["fromFile"]
    assert seen["cameras"] == [False], "opened once, and off again"
    assert seen["sentFromDialog"] == 0


@DEVICES
def test_a_clip_is_recorded_and_plays(server: ServerProcess, chromium: str, tmp_path: Path, device: str) -> None:
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
    assert "Playing a take" in seen["words"]
    assert seen["linkLength"] < 2000
    assert seen["onward"]["runFrame"] > original["runFrame"]
    assert seen["saidInTake"] == "Playing a take"
    assert seen["restarted"]["replay"] is None
    assert seen["restartedLater"]["sentSeq"] == seen["restarted"]["sentSeq"], "a restart ends the take"
    assert seen["restartedLater"]["runFrame"] > seen["restarted"]["runFrame"]
    assert "take cannot be read" in seen["notice"]
    assert seen["wayOut"] == {"address": "", "notice": False}


def test_the_mouse_looks_around_where_there_is_an_axis_for_it(
    server: ServerProcess, chromium: str, tmp_path: Path
) -> None:
    seen = drive("look", server, tmp_path, chromium)
    assert seen["after"]["sentSeq"] > seen["before"]["sentSeq"]
    assert seen["after"]["appliedSeq"] == seen["after"]["sentSeq"]
    assert "mouse" in seen["hint"]
    assert seen["lookedInVain"]["sentSeq"] == seen["paused"]["sentSeq"], "nobody looks around in a paused world"
    assert seen["speed"] == "0.25", "a branch keeps the speed"
    assert seen["enlarged"] == ["pixelated", "auto"], "as each world's card says"


def test_an_unknown_world_is_named(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("unknownWorld", server, tmp_path, chromium)
    assert 'no world "atlantis"' in seen["notice"]
    assert "Choose a world" in seen["notice"]


def test_a_restarted_server_is_found_again(chromium: str, tmp_path: Path) -> None:
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
    assert seen["toast"] == "This branch is no longer kept.", "the server forgot it; the first stage stays"
    assert seen["disabled"] == 0
    assert seen["speed"] == "0.5"
