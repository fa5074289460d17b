"""Admission follows what ticks take while a world is played."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from server.config import ServerConfig
from server.engine.model_runner import ModelRunner, Stepped
from server.sessions.input_buffer import Sample
from server.wire.protocol import Queued, Welcome
from tests.server.raw import hello, raw_client
from tests.server.serving import serve
from tests.server.waiting import until
from world.testing import tiny_world

SLOW_S = 0.2
CONFIG = ServerConfig(max_sessions=2, num_threads=1, headroom=4.0, hold_s=0.0, address_share=1.0)
"""Ticks of up to four thirtieths of a second leave time for two, however busy this machine is."""


async def test_who_waits_enters_when_ticks_become_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    is_slow, real = threading.Event(), ModelRunner.step

    def step(runner: ModelRunner, samples: Sequence[Sample], slots: Sequence[int]) -> Stepped:
        stepped = real(runner, samples, slots)
        if not is_slow.is_set():
            return stepped
        time.sleep(SLOW_S)
        return replace(stepped, step_ms=stepped.step_ms + SLOW_S * 1e3)

    monkeypatch.setattr(ModelRunner, "step", step)
    with serve(CONFIG, {"pixel": tiny_world}) as server:

        def tick_s() -> float:
            return server.engine.world_registry.latency_s["pixel"][2]

        is_slow.set()
        async with raw_client(server.url, hello()) as first, raw_client(server.url) as second:

            async def play() -> None:
                while True:
                    await first.play(1)

            playing = asyncio.create_task(play())
            await until(lambda: tick_s() > SLOW_S, "two together count as slow, as one is")
            await second.send(hello())
            assert isinstance(await second.receive(), Queued)
            is_slow.clear()
            await until(lambda: tick_s() < SLOW_S / 2, "ticks are fast again")
            while not isinstance(message := await second.receive(), Welcome):
                assert isinstance(message, Queued)
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
