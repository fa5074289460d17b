"""Decoding during later steps: frames from another thread equal those of sequential decoding."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from server.engine.model_runner import ModelRunner
from server.sessions.input_buffer import Sample
from server.sessions.run import StartRequest
from tests.world.definitions import context, random_actions
from world import Rollout
from world.rollout.decode_stream import DecodeStream
from world.testing import tiny_world

STEPS = 24
needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_a_gpu])]


def _started(device: str) -> Rollout:
    world = tiny_world()
    if device == "cuda":
        world = type(world)(
            world.card, world.codec, world.transformer, world.sampler, world.starts, device=torch.device("cuda")
        )
    rollout = world.rollout(1)
    rollout.start([0], *context(world, seed=0), [1])
    return rollout


@pytest.mark.parametrize("device", DEVICES)
def test_frames_equal_those_of_one_thread(device: str) -> None:
    rollout, other = _started(device), _started(device)
    expected = [rollout.step(random_actions(rollout.model, 1, number), [0]).cpu() for number in range(STEPS)]

    def decoded(latents: Tensor, ready: torch.cuda.Event | None) -> Tensor:
        return other.decode(latents, [0], ready).cpu()

    with ThreadPoolExecutor(1) as pipeline:
        futures = []
        for number in range(STEPS):
            latents = other.step_latents(random_actions(other.model, 1, number), [0])
            futures.append(pipeline.submit(decoded, latents, other.ready(0)))
        found = [future.result() for future in futures]
    assert torch.equal(torch.cat(found), torch.cat(expected))


def test_a_cpu_needs_no_waiting() -> None:
    decode_stream = DecodeStream(torch.device("cpu"))
    assert decode_stream.mark() is None
    with decode_stream.after([None]):
        tensor = torch.ones(2)
    decode_stream.hand_over([tensor])


def test_a_decode_waits_for_the_step_that_made_its_latents_and_for_no_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The steps' events in order, as a GPU would give them."""
    marks, waited = iter(range(100)), list[set[object]]()

    @contextmanager
    def after(_stream: DecodeStream, events: set[object]) -> Iterator[None]:
        waited.append(set(events))
        yield

    monkeypatch.setattr(DecodeStream, "mark", lambda _stream: next(marks))
    monkeypatch.setattr(DecodeStream, "after", after)
    runner = ModelRunner(tiny_world(), 2, 2, ())
    for slot in (0, 1):
        runner.start(slot, StartRequest())
    made = [runner.step([Sample()] * 2, [0, 1]) for _ in range(3)]
    assert [stepped.ready for stepped in made] == [0, 1, 2]
    for stepped in made:
        runner.decode(stepped, [0, 1])
    assert waited == [{0}, {1}, {2}]
