"""Keys whose release the browser does not report, and axes that the mouse does not move, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.config import ServerConfig
from tests.server.serving import serve
from tests.web.driving import drive
from tests.web.test_lifecycle import InProcess
from world import Actions, Sampler, World
from world.card import Axis
from world.starts import Start
from world.testing import CONFIGS, tiny_transformer, tiny_world

pytestmark = pytest.mark.browser

NUM_AXES = 20
CONFIG = ServerConfig(max_sessions=4, num_threads=1, headroom=None, max_per_address=100, connections_per_s=100.0)


def world_of_axes() -> World:
    """Return a world with twenty axes: the first looks around, the others are numbered as a gamepad's."""
    tiny = tiny_world()
    axes = [
        Axis(name=f"axis{i}", label=f"Axis {i}", low=-2.0, high=1.0, source=f"gamepad_{i}") for i in range(NUM_AXES)
    ]
    axes[0] = replace(axes[0], source="mouse_x")
    starts = [Start(start.name, start.frames, Actions.none(1, len(start.frames), 2, NUM_AXES)) for start in tiny.starts]
    transformer = tiny_transformer(replace(CONFIGS["pixel"][1], num_axes=NUM_AXES))
    card = replace(tiny.card, axes=tuple(axes))
    return World(card, tiny.codec, transformer, Sampler(num_steps=2), starts)


@pytest.fixture(scope="module")
def axes_server() -> Iterator[InProcess]:
    with serve(CONFIG, {"axes": world_of_axes}) as running:
        yield InProcess(running, f"{running.url}/")


def test_keys_whose_release_is_not_reported_are_released(axes_server: InProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("lostKeyups", axes_server, tmp_path, chromium)
    assert seen["held"] == {cause: [["up"], []] for cause in ("metaDown", "metaUp", "menu", "hidden", "blur")}
    assert seen["altGraph"] == []
    assert (seen["hidden"], seen["shown"]) == ("paused", "playing"), "a hidden page pauses, and is asked again"


def test_axes_are_moved_by_sliders_and_sticks(axes_server: InProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("axes", axes_server, tmp_path, chromium)
    assert len(seen["sliders"]) == NUM_AXES - 1, "the mouse moves one"
    assert seen["sliders"][:4] == [
        "Axis 1 (left stick ↕)",
        "Axis 2 (right stick ↔)",
        "Axis 3 (right stick ↕)",
        "Axis 4",
    ]
    assert seen["dragged"][1] > 0
    assert seen["dragged"][0] >= 0
    assert float(seen["restAfterDrag"]) == pytest.approx(0, abs=0.02)
    assert seen["byKeys"][0] < 0
    assert seen["byStick"][0] < 0
    assert all(seen[f"quietAfter{what}"] for what in ("Drag", "Keys", "Stick"))
    assert seen["stepped"][0] == pytest.approx(1.0), "a single step applies what the slider holds"
