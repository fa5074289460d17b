"""New machine code is taken into use while people play: tried beside the game, and adopted if it is faster. A stand-in
for the compiling process, and packages that run PyTorch's operations, make this quick; one test compiles for real."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from server.admission.tick_times import FEWEST
from server.compilation import background, parts
from server.compilation.parts import Part
from server.config import ServerConfig
from server.engine import code_trial, live_compilation, model_runner
from server.engine.code_trial import NewAttention, trial
from server.engine.model_runner import ModelRunner, Stepped
from server.engine.timed_sessions import TimedSessions
from server.wire.protocol import Act, Queued, Welcome
from tests.server.compilation.test_background import FakeWorker
from tests.server.engine.test_sharing import decoded
from tests.server.raw import Raw, hello, raw_client
from tests.server.serving import RunningServer, serve
from tests.server.waiting import until
from world import World
from world.model.transformer import Transformer
from world.rollout.step_threads import ThreadSettings
from world.runtime import segments
from world.runtime.packages import CHUNKS, Package, Packages
from world.testing import tiny_world

CONFIG = ServerConfig(max_sessions=2, num_threads=1, resume_s=0.0, headroom=None, compiles=True)


def eager_packages(network: Transformer, batch: int) -> Packages:
    """Return packages that do what compiled ones do, without a compiler."""

    def package(module: torch.nn.Module, num_inputs: int) -> Package:
        names = [*dict(module.named_parameters()), *dict(module.named_buffers())]

        def run(tensors: list[Tensor]) -> list[Tensor]:
            weights = dict(zip(names, tensors[num_inputs:], strict=True))
            return list(functional_call(module, weights, tuple(tensors[:num_inputs])))

        return run

    return {
        num_chunks: {
            name: package(module, len(inputs))
            for name, (module, inputs) in segments.segments(network, batch, num_chunks).items()
        }
        for num_chunks in CHUNKS
    }


def step_ms_by_code(self: TimedSessions, num_threads: int) -> float:
    """Run a step, and say that it takes half as long with new code."""
    real_step_ms(self, num_threads)
    compiled, rings = self.rollout.model.compiled, self.rollout.arena.rings
    has_code = compiled is not None and compiled.fits(self.rollout.num_slots, 1)
    return 5.0 if has_code or rings.kernel_choice.native_attention else 10.0


real_step_ms = TimedSessions.step_ms


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTCONE_CACHE", str(tmp_path / "cache"))
    tiny_world().save(tmp_path / "tiny")
    return tmp_path / "tiny"


@contextmanager
def compiling(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Part], object], config: ServerConfig = CONFIG
) -> Iterator[RunningServer]:
    """Serve the checkpoint with a stand-in for the compiling process."""
    monkeypatch.setattr(background, "check_compiler", lambda: None)
    monkeypatch.setattr(background, "Worker", lambda: FakeWorker(make))
    monkeypatch.setattr(live_compilation, "load_packages", eager_packages)
    monkeypatch.setattr(TimedSessions, "step_ms", step_ms_by_code)
    monkeypatch.setattr(live_compilation, "SHARE", 0.5)
    with serve(config, {"tiny": partial(World.load, checkpoint, dtype=torch.float32)}) as server:
        yield server


def sizes(server: RunningServer) -> list[int]:
    compiled: Any = server.engine.world_registry.runner("tiny").world.compiled
    return compiled.sizes if compiled is not None else []


def status(server: RunningServer) -> str:
    answer = httpx.get(f"{server.url}/readyz")
    assert answer.status_code == 200
    return str(answer.json()["compilation"])


async def play(client: Raw, acts: list[tuple[str, ...]], first_seq: int = 0) -> np.ndarray:
    frames = []
    for seq, held in enumerate(acts, first_seq):
        await client.send(Act(seq=seq, buttons=held))
        frames += await client.play(1)
    return decoded(frames)


async def test_new_code_is_swapped_in_under_players_who_notice_nothing(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acts: list[tuple[str, ...]] = [("up",), (), ("down",), ("up",)] * 10
    mine = hello("tiny", pacing="lockstep", start={"index": 1, "seed": 7})
    may_compile = threading.Event()
    with compiling(checkpoint, monkeypatch, lambda _: may_compile.wait(30)) as server:
        async with raw_client(server.url, mine) as client:
            first = await play(client, acts)
        assert status(server) == "compiling 1 of 2"
        assert b"lightcone_parts_to_compile 2.0" in server.engine.metrics.text()
        assert sizes(server) == []
        async with raw_client(server.url, mine) as client:
            before = await play(client, acts[:8])
            may_compile.set()
            await until(lambda: sizes(server) == [1, 2], "both sizes are used")
            after = await play(client, acts[8:], 8)
        assert np.abs(np.concatenate([before, after]) - first).max() <= 1
        assert status(server) == "compiled"


async def test_admission_counts_with_the_new_times(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_compile = threading.Event()
    config = replace(CONFIG, headroom=50.0, address_share=1.0)  # so that a busy machine makes no difference
    with compiling(checkpoint, monkeypatch, lambda _: may_compile.wait(30), config) as server:
        ticks = server.engine.world_registry.runner("tiny").tick_times
        server.engine._pipeline.call(lambda: ticks.measure(2, 60e3))
        async with raw_client(server.url, hello("tiny")) as first, raw_client(server.url) as second:
            playing = asyncio.create_task(first.play(10_000))
            await second.send(hello("tiny"))
            assert isinstance(await second.receive(), Queued)
            await asyncio.sleep(0.6)  # longer than the queue is checked
            assert server.engine.num_sessions == (1, 1), "there is no time for two"
            may_compile.set()
            assert isinstance(await second.receive(), Welcome)
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)


async def test_code_that_was_left_unused_is_tried_again(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was measured as slower at a start, perhaps because the machine was busy; nothing has to be compiled."""
    made: list[Part] = []
    monkeypatch.setattr(parts, "compiled_sizes", lambda _: [1, 2, 4])
    with compiling(checkpoint, monkeypatch, made.append) as server:
        await until(lambda: sizes(server) == [1, 2], "both sizes are used")
        assert status(server) == "compiled"
    assert made == []


async def test_code_that_is_not_faster_is_not_used(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def same(self: TimedSessions, num_threads: int) -> float:
        tried.append(real_step_ms(self, num_threads))
        return 5.0

    config = replace(CONFIG, max_sessions=1)
    with compiling(checkpoint, monkeypatch, lambda _: None, config) as server:
        monkeypatch.setattr(TimedSessions, "step_ms", same)
        await until(lambda: len(tried) == 2 * (1 + code_trial.REPEATS), "the trial has ended")
        async with raw_client(server.url, hello("tiny")) as client:
            assert len(await client.play(3)) == 3
        assert sizes(server) == []


async def test_code_that_does_not_run_is_one_warning_and_players_play_on(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(network: Transformer, batch: int) -> Packages:
        packages = eager_packages(network, batch)

        def fail(_: list[Tensor]) -> list[Tensor]:
            raise RuntimeError("illegal instruction")

        return {num_chunks: dict.fromkeys(segments, fail) for num_chunks, segments in packages.items()}

    config = replace(CONFIG, max_sessions=1)
    may_compile = threading.Event()
    with compiling(checkpoint, monkeypatch, lambda _: may_compile.wait(30), config) as server:
        monkeypatch.setattr(live_compilation, "load_packages", broken)
        async with raw_client(server.url, hello("tiny")) as client:
            await client.play(3)
            may_compile.set()
            await until(lambda: "does not run" in caplog.text, "the trial has failed")
            assert len(await client.play(5)) == 5
        assert sizes(server) == []
        assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_nothing_is_compiled_if_that_is_switched_off(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Part] = []
    with compiling(checkpoint, monkeypatch, made.append, replace(CONFIG, compiles=False)) as server:
        assert status(server) == "off"
    assert made == []


def test_attention_is_tried_and_used_by_the_running_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimedSessions, "step_ms", step_ms_by_code)
    runner = ModelRunner(tiny_world(dtype=torch.bfloat16), 2, 2, ())
    runner.warm_up(lambda work: work())
    for _ in trial("tiny", NewAttention(runner), lambda work: work()):
        assert (
            not runner.world.kernel_choice.native_attention
            or runner._rollout.arena.rings.kernel_choice.native_attention
        )
    assert runner._rollout.arena.rings.kernel_choice.native_attention
    assert all(tick_ms >= 5.0 for tick_ms in runner.latency_ms.values()), "every size was measured again"


def test_what_counts_for_a_size_is_its_fastest_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions begin with one thread, because that is robust; with two threads they are faster."""
    monkeypatch.setattr(TimedSessions, "step_ms", lambda _, num_threads: 4.0 if num_threads == 2 else 1e3)
    monkeypatch.setattr(model_runner, "num_cores", lambda: 2)
    torch.set_num_threads(2)
    try:
        world = tiny_world()
        world.threads = ThreadSettings(most=2, preferred={1: 1})
        runner = ModelRunner(world, 2, 2, ())

        def step(_: object, slots: Sequence[int]) -> Stepped:
            runner.threads_used[len(slots)] = 1
            return Stepped(None, 50.0, 1)

        monkeypatch.setattr(runner, "step", step)
        monkeypatch.setattr(runner, "decode", lambda *_: None)
        runner.warm_up(lambda work: work())
    finally:
        torch.set_num_threads(1)
    assert [runner.likely_threads(size) for size in (1, 2)] == [1, 2]
    assert runner.latency_ms == {1: 50.0, 2: 4.0}
    runner.note_step(2, 60.0, 1)
    assert runner.latency_ms[2] == 4.0, "one thread is not used for two sessions then"
    runner.note_step(2, 70.0, 2)
    assert runner.latency_ms[2] == 70.0
    for _ in range(FEWEST):
        runner.note_tick(2, Stepped(None, 30.0, 2), 10.0)
    assert runner.latency_ms[2] == 35.0, "whatever the model has stepped with since"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
async def test_a_real_process_compiles_and_its_code_is_played(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")  # most of the compiler's time
    monkeypatch.setattr(TimedSessions, "step_ms", step_ms_by_code)
    config = replace(CONFIG, max_sessions=1)
    world = partial(World.load, checkpoint, dtype=torch.float32)
    with serve(config, {"tiny": world}) as server:
        async with raw_client(server.url, hello("tiny")) as client:
            while not sizes(server):
                assert await client.play(1)
                assert status(server) in ("compiling 1 of 1", "compiled"), caplog.text
            assert len(await client.play(5)) == 5
    assert sizes(server) == [1]
    with serve(config, {"tiny": world}) as server:
        assert status(server) == "compiled", "the next start finds it"
    assert os.listdir(checkpoint.parent / "cache" / "compiled")
