"""The plain HTTP routes, the page, and what the server reports."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from server.config import WEB_DIST, ServerConfig
from server.errors import ConfigError
from server.telemetry import metrics
from server.wire.protocol import Act, WorldInfo
from tests.server.raw import hello, raw_client
from tests.server.serving import RunningServer, serve
from world.testing import tiny_world

CONFIG = ServerConfig(address_share=1.0, max_sessions=2, num_threads=1)


def test_a_warm_server_is_healthy_and_ready(server: RunningServer) -> None:
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{server.url}/readyz")
    off = "off"  # nothing can be compiled for worlds that come from no folder
    expected = {"status": "ready", "playing": 0, "waiting": 0, "compilation": off}
    assert (ready.status_code, ready.json()) == (200, expected)


def test_worlds_are_listed_in_order(server: RunningServer) -> None:
    worlds = [WorldInfo.model_validate(world) for world in httpx.get(f"{server.url}/v1/worlds").json()["worlds"]]
    assert [(world.name, world.chunk_frames) for world in worlds] == [("pixel", 1), ("wan", 12)]
    assert worlds[0].buttons[0].keys == ("ArrowUp", "KeyW")
    assert worlds[1].axes[0].name == "axis0"


def test_the_page_is_served_with_a_policy_that_forbids_foreign_sources(server: RunningServer) -> None:
    page = httpx.get(f"{server.url}/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    asset = next((WEB_DIST / "assets").iterdir()).name
    assert "immutable" in httpx.get(f"{server.url}/assets/{asset}").headers["cache-control"]
    assert httpx.get(f"{server.url}/..%2f..%2fpackage.json").status_code == 404


def test_without_a_built_page_the_answer_says_how_to_build_it(tmp_path: Path) -> None:
    with serve(replace(CONFIG, web_dist=tmp_path), {"pixel": tiny_world}) as server:
        page = httpx.get(server.url)
    assert page.status_code == 503
    assert "npm" in page.text
    assert str(tmp_path) in page.text


async def test_until_the_worlds_are_warm_the_server_is_healthy_but_not_ready() -> None:
    may_load = threading.Event()

    def slow_world() -> object:
        may_load.wait(30)
        return tiny_world()

    with serve(CONFIG, {"pixel": slow_world}, wait_until_ready=False) as server:  # type: ignore[dict-item]  # mypy: object
        async with httpx.AsyncClient(base_url=server.url) as http:
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == 503
            assert (await http.get("/v1/worlds")).status_code == 503
            async with raw_client(server.url) as client:
                await client.send(hello())
                assert (await client.error()).code == "not_ready"
                assert await client.close_code() == 1013
            may_load.set()
            async with asyncio.timeout(30):
                while (await http.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.02)


def test_an_error_in_loading_a_world_reaches_the_caller_who_started_the_server(tmp_path: Path) -> None:
    with (
        pytest.raises(Exception, match="no world at"),
        serve(CONFIG, {"ghost": tmp_path / "ghost"}),
    ):
        pass


@pytest.mark.parametrize(
    "settings",
    [
        {"max_sessions": 0},
        {"max_message_bytes": 0},
        {"queue_limit": -1},
        {"resume_s": math.nan},
        {"jpeg_quality": 101},
        {"buckets": (4, 2)},
        {"buckets": (1, 2), "max_batch": 8},
    ],
)
def test_impossible_settings_are_refused_with_their_value(settings: dict[str, object]) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(ConfigError) as caught:
        replace(ServerConfig(), **settings)  # type: ignore[arg-type]  # wrong on purpose
    assert name in str(caught.value)
    assert str(value) in str(caught.value)


async def test_metrics_reach_prometheus(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RENDER_EVERY_S", 0.0)

    def scrape() -> dict[str, float]:
        text = httpx.get(f"{server.url}/metrics").text
        return {s.name + str(sorted(s.labels.items())): s.value for f in parse(text) for s in f.samples}

    before = scrape()
    assert before["lightcone_sessions[]"] == 0
    async with raw_client(server.url, hello()) as client:
        await client.send(Act(seq=0, buttons=("up",)))
        await client.play(4)
        assert scrape()["lightcone_sessions[]"] == 1
    async with raw_client(server.url) as client:
        await client.send(Act(seq=0))
        assert (await client.error()).code == "bad_message"
        await client.close_code()
    after = scrape()

    def increase(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert increase("lightcone_admissions_total[('world', 'pixel')]") == 1
    assert increase("lightcone_refusals_total[('code', 'bad_message')]") == 1
    assert increase("lightcone_frames_total[('fate', 'sent')]") >= 4
    assert increase("lightcone_tick_seconds_count[('batch', '1'), ('world', 'pixel')]") >= 3
    assert increase("lightcone_decode_seconds_count[('world', 'pixel')]") >= 3
    assert increase("lightcone_action_to_frame_seconds_count[]") == 1
    assert 0 < increase("lightcone_action_to_frame_seconds_sum[]") < 10


def test_metrics_are_rendered_at_most_once_a_second(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def scrape() -> bytes:
        return httpx.get(f"{server.url}/metrics").content

    assert metrics.RENDER_EVERY_S == 1.0
    monkeypatch.setattr(metrics, "RENDER_EVERY_S", 0.0)
    before = scrape()
    monkeypatch.setattr(metrics, "RENDER_EVERY_S", 1000.0)
    server.engine.metrics.refusals.labels("a new code").inc()
    assert scrape() == before
    monkeypatch.setattr(metrics, "RENDER_EVERY_S", 0.0)
    assert b"a new code" in scrape()
