"""Work on the slots of several sessions: in turn, beside those who play; and the previews, which wait for everybody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.engine import previews
from server.engine.decode_pipeline import DecodePipeline
from server.engine.model_runner import ModelRunner
from server.telemetry.metrics import Metrics
from server.wire import frames
from server.wire.protocol import Save, Saved, Start, StartFrom
from tests.server.raw import Raw, hello, raw_client
from tests.server.resuming import CONFIG, WORLDS, resuming
from tests.server.serving import RunningServer, serve
from tests.server.waiting import until
from world import Rollout


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with serve(replace(CONFIG, hold_s=60.0), WORLDS) as running:
        yield running


async def test_starts_from_files_take_turns_and_others_are_stepped_between_their_parts(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is a pass over a few frames, whoever it is for."""
    order: list[int] = []
    begun: set[int] = set()
    real = Rollout.restoring

    def restoring(rollout: Rollout, slot: int, *rest: Any) -> Iterator[None]:
        begun.add(slot)
        deadline = time.monotonic() + 10.0
        while len(begun) < 2 and time.monotonic() < deadline:
            yield  # until the other has begun, too
        for _ in real(rollout, slot, *rest):
            order.append(slot)
            yield

    async with AsyncExitStack() as stack:
        players = [await stack.enter_async_context(raw_client(server.url, hello())) for _ in range(3)]
        for player in players:
            await player.play(2)
        files = [await saved(player) for player in players[:2]]
        monkeypatch.setattr(Rollout, "restoring", restoring)
        num_ticks = server.engine.num_ticks
        steady = asyncio.create_task(players[2].play(1000))
        for player, file in zip(players, files, strict=False):
            await player.send(Start(seq=9, start=StartFrom(state=file)))
        for player in players[:2]:
            while (frame := await player.frame()).kind != "start":
                pass
            assert frame.run == 1
        steady.cancel()
        await asyncio.gather(steady, return_exceptions=True)
    assert server.engine.num_ticks > num_ticks
    assert len(set(order)) == 2
    changes = sum(a != b for a, b in pairwise(order))
    assert changes > 1, "one session's parts are done between another's"


async def saved(client: Raw) -> bytes:
    await client.send(Save(seq=1))
    while not isinstance(message := await client.receive(), Saved):
        pass
    return message.file


async def test_who_comes_back_to_a_held_slot_is_not_admitted_again(server: RunningServer) -> None:
    async with raw_client(server.url, hello()) as client:
        seen, welcome = await client.play(2), client.welcome
    for _ in range(3):
        async with raw_client(server.url, resuming(welcome, seen[-1].index)) as client:
            seen += await client.play(2)
    text = server.engine.metrics.text().decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["lightcone_admissions_total", "pixel"] == 1
    assert samples["lightcone_resumes_total", "slot"] == 3


# ---- previews


async def test_a_preview_that_fails_is_tried_again_and_nobody_else_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[str] = []
    real: Callable[..., Any] = ModelRunner.step

    def step(runner: ModelRunner, samples: Any, slots: list[int]) -> Any:
        if slots == [runner.preview_slot] and len(failures) < 2:
            failures.append("once more")
            raise ArithmeticError("out of paint")
        return real(runner, samples, slots)

    monkeypatch.setattr(previews, "RETRY_S", 0.0)
    monkeypatch.setattr(ModelRunner, "step", step)
    with serve(CONFIG, WORLDS) as server:
        async with raw_client(server.url, hello()) as client:
            assert len(await client.play(3)) == 3
        await until(lambda: server.engine.world_registry.previews.num_left == 0, "all previews are made")
        assert len(failures) == 2
        assert server.engine.is_ready


async def test_a_preview_whose_encoding_failed_is_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def encode_animation(*arguments: Any) -> bytes:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("out of paper")
        return frames.encode_animation(*arguments)

    monkeypatch.setattr("server.http.routes.encode_animation", encode_animation)
    with serve(CONFIG, WORLDS) as server:
        await until(lambda: server.engine.world_registry.previews.num_left == 0, "all previews are made")
        address = f"{server.url}/v1/worlds/pixel/preview"
        assert (await asyncio.to_thread(httpx.get, address)).status_code == 500
        assert (await asyncio.to_thread(httpx.get, address)).status_code == 200


def test_a_decode_thread_that_is_busy_is_not_waited_for() -> None:
    pipeline = DecodePipeline(lambda _exc, _world: None, cast("Metrics", None))  # it counts only ticks
    first, second = pipeline.try_call(lambda: 1), pipeline.try_call(lambda: 2)
    assert first is not None
    assert second is None, "the first one waits, because nothing is decoded yet"
    pipeline.start()
    assert first.result(10) == 1
    pipeline.stop()
