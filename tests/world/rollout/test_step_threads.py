"""A step uses its own number of threads, and leaves torch's setting as it was. What else runs here is left out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from world.actions import Actions
from world.device import OtherProcesses
from world.rollout import step_threads
from world.rollout.networks import Model
from world.rollout.step_threads import StepThreads, ThreadSettings
from world.rollout.thread_policy import FIRST_WAIT, ThreadPolicy
from world.testing import tiny_world

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.set_num_threads(2)
    monkeypatch.setattr(OtherProcesses, "cores", lambda _: 0.0)
    yield
    torch.set_num_threads(1)


def test_a_rollout_steps_and_decodes_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world()
    world.threads = ThreadSettings(preferred={1: 1, 2: 2})
    start, seen = world.starts[0], []
    network, decode = Model.network, Model.decode

    def stepping(self: Model, num_slots: int, num_chunks: int) -> object:
        seen.append(torch.get_num_threads())
        return network(self, num_slots, num_chunks)

    def decoding(self: Model, *args: object) -> object:
        seen.append(torch.get_num_threads())
        return decode(self, *args)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Model, "network", stepping)
    monkeypatch.setattr(Model, "decode", decoding)
    monkeypatch.setattr(ThreadPolicy, "limit", lambda *_: None)  # however busy this machine is
    for batch in (1, 2):
        frames = start.frames[None].expand(batch, -1, -1, -1, -1)
        rollout = world.start(frames, Actions.none(batch, frames.shape[1], 2))
        held = world.actions([["up"]] * batch)
        rollout.step(held)
        seen.clear()
        rollout.step(held)
        assert seen == [batch] * 3, "two passes and decoding"
        assert rollout.threads.last == batch
        assert torch.get_num_threads() == 2


def test_torch_s_setting_is_restored_after_an_error() -> None:
    threads = StepThreads(ThreadSettings(preferred={1: 1}), CPU)
    with pytest.raises(ZeroDivisionError), threads.step(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
    with threads.step(1):
        assert torch.get_num_threads() == 1


@pytest.mark.parametrize("preferred", [1, 2])
def test_a_step_that_takes_too_long_goes_on_with_fewer_threads(preferred: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world()
    world.threads = ThreadSettings(preferred={1: preferred})
    rollout = world.start(world.starts[0].frames[None], world.starts[0].actions)
    held = world.actions(["up"])
    rollout.step(held)
    seen = []
    check = StepThreads.check

    def checked(self: StepThreads) -> None:
        seen.append(torch.get_num_threads())
        check(self)

    monkeypatch.setattr(StepThreads, "check", checked)
    monkeypatch.setattr(ThreadPolicy, "limit", lambda *_: None if preferred == 1 else (0.0, 1))
    rollout.step(held)
    num_layers = world.transformer.config.num_layers
    assert seen == [preferred] + [1] * (2 * num_layers - 1), "in every layer of both passes"
    assert torch.get_num_threads() == 2
    check(rollout.threads)
    assert torch.get_num_threads() == 2, "the limit is of that step"


def test_a_part_of_a_step_is_not_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []
    monkeypatch.setattr(ThreadPolicy, "record", lambda _, batch, ms: recorded.append((batch, ms)))
    threads = StepThreads(ThreadSettings(), CPU)
    with threads.step(3), threads.step(3):
        pass
    assert [batch for batch, _ in recorded] == [3]
    assert recorded[0][1] >= 0


@pytest.mark.parametrize(
    ("settings", "bound", "expected"),
    [
        (ThreadSettings(), 2, {1, 2}),
        (ThreadSettings(), 1, {1}),
        (ThreadSettings(adapts=False, preferred={1: 1}), 2, {2}),
    ],
)
def test_torch_s_setting_is_the_bound(settings: ThreadSettings, bound: int, expected: set[int]) -> None:
    torch.set_num_threads(bound)
    threads = StepThreads(settings, CPU)
    used = set()
    for _ in range(2 * FIRST_WAIT):
        with threads.step(1):
            used.add(torch.get_num_threads())
    assert used == expected


@pytest.mark.parametrize(("taken", "expected"), [(0.5, {1, 2}), (1.0, {1}), (2.0, {1})])
def test_more_threads_are_not_tried_while_others_take_the_cores(
    taken: float, expected: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_threads, "usable_cores", lambda: {0, 1})
    monkeypatch.setattr(OtherProcesses, "cores", lambda _: taken)
    threads = StepThreads(ThreadSettings(preferred={1: 1}), CPU)
    used = set()
    for _ in range(3 * FIRST_WAIT):
        with threads.step(1):
            used.add(torch.get_num_threads())
    assert used == expected


def test_on_a_gpu_nothing_is_set() -> None:
    threads = StepThreads(ThreadSettings(preferred={1: 1}), torch.device("cuda"))
    with threads.step(1):
        assert torch.get_num_threads() == 2
    assert threads.number(1) == 2


def test_starts_and_rewinds_use_the_number_of_a_step_of_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world()
    world.threads = ThreadSettings(preferred={1: 1})
    rollout = world.rollout(1, timeline_chunks=4)
    seen: set[int] = set()
    network, encode = Model.network, Model.encode

    def passing(self: Model, num_slots: int, num_chunks: int) -> object:
        seen.add(torch.get_num_threads())
        return network(self, num_slots, num_chunks)

    def encoding(self: Model, frames: torch.Tensor) -> object:
        seen.add(torch.get_num_threads())
        return encode(self, frames)

    monkeypatch.setattr(Model, "network", passing)
    monkeypatch.setattr(Model, "encode", encoding)
    start = world.starts[0]
    rollout.start([0], start.frames[None], start.actions, [0])
    for _ in range(3):
        rollout.step(world.actions(["up"]))
    parts = rollout.rewinding(0, 1)
    for _ in parts:
        assert torch.get_num_threads() == 2, "between two parts"
    assert seen == {1}
