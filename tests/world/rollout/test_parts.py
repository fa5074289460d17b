"""Long work on a slot runs in parts no longer than a step, and one thread owns a rollout."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.world.definitions import assert_within, context, random_actions
from world import Rollout, World
from world.testing import tiny_world

SEED = 21


def played(world: World, num_steps: int, **options: Any) -> Rollout:
    frames, actions = context(world, seed=0)
    rollout = world.rollout(2, **options)
    rollout.start([0], frames, actions, [SEED])
    for step in range(num_steps):
        rollout.step(random_actions(world, 1, step), [0])
    return rollout


def num_flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def flops_by_part(parts: Generator[None, None, object]) -> list[int]:
    numbers, is_over = [], False

    def advance() -> None:
        nonlocal is_over
        is_over = next(parts, "end") == "end"

    while not is_over:
        numbers.append(num_flops(advance))
    return numbers


def works(world: World, rollout: Rollout) -> dict[str, Generator[None, None, object]]:
    """Return everything that a server does to a slot beside stepping it."""
    frames, actions = context(world, seed=3)
    exact, light = rollout.snapshot(0), rollout.snapshot(0, exact=False)
    last = rollout.frame_index(0)
    return {
        "start": rollout.starting([1], frames, actions, [4]),
        "restore": rollout.restoring(1, exact),
        "restore without K/V": rollout.restoring(1, light),
        "fork": rollout.snapshotting(0, frame=last),
        "fork in the past": rollout.snapshotting(0, frame=last - 9 * world.transformer.config.chunk_frames),
        "rewind": rollout.rewinding(0, last - 7 * world.transformer.config.chunk_frames),
    }


def test_no_part_takes_longer_than_a_step(world: World) -> None:
    assert_parts_are_short(world, played(world, 40, timeline_chunks=64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pong", "doom"])
def test_no_part_takes_longer_than_half_a_step_in_the_shipped_worlds(name: str) -> None:
    world = World.load(Path(__file__).resolve().parents[3] / "checkpoints" / name, dtype=torch.float32, device="cpu")
    assert_parts_are_short(world, played(world, 100, timeline_chunks=64), most_steps=0.5)


def assert_parts_are_short(world: World, rollout: Rollout, most_steps: float = 1.0) -> None:
    step = num_flops(lambda: rollout.step(random_actions(world, 1, 0), [0]))
    assert step > 0
    for name, parts in works(world, rollout).items():
        longest = max(flops_by_part(parts))
        assert longest <= most_steps * step, f"{name}: the longest part is {longest / step:.2f} steps"


def test_work_in_parts_gives_what_it_gives_at_once(world: World) -> None:
    rollout = played(world, 40)
    light, (frames, actions) = rollout.snapshot(0, exact=False), context(world, seed=3)
    in_parts, at_once = world.rollout(2), world.rollout(2)
    at_once.restore(0, light)
    at_once.start([1], frames, actions, [4])
    num_parts = [len(flops_by_part(in_parts.restoring(0, light)))]
    num_parts.append(len(flops_by_part(in_parts.starting([1], frames, actions, [4]))))
    assert min(num_parts) > 2
    for step in range(6):
        both = random_actions(world, 2, step)
        assert_within(in_parts.step_latents(both, [0, 1]), at_once.step_latents(both, [0, 1]), 1e-4)


def test_work_that_is_given_up_leaves_the_slot_as_it_was(world: World) -> None:
    rollout, twin = played(world, 12, timeline_chunks=64), played(world, 12)
    for name, parts in works(world, rollout).items():
        if name != "rewind":  # it goes back in place; whoever gives it up releases the slot
            next(parts, None)
            parts.close()
    frames, actions = context(world, seed=3)
    begun = rollout.starting([0], frames, actions, [4])
    next(begun)
    begun.close()
    again = random_actions(world, 1, 99)
    assert torch.equal(rollout.step_latents(again, [0]), twin.step_latents(again, [0]))


# ---- who may do what


def in_another_thread(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def test_only_the_owner_may_do_anything_but_decode() -> None:
    world = tiny_world()
    rollout = played(world, 2)
    latents = rollout.step_latents(random_actions(world, 1, 0), [0])
    state, (frames, actions) = rollout.snapshot(0), context(world, seed=3)
    in_another_thread(lambda: rollout.decode(latents, [0]))
    for work in (
        lambda: rollout.step_latents(random_actions(world, 1, 0), [0]),
        lambda: rollout.start([1], frames, actions, [0]),
        lambda: rollout.restore(1, state),
        lambda: rollout.snapshot(0),
        lambda: rollout.release(0),
    ):
        with pytest.raises(AssertionError, match="another thread"):
            in_another_thread(work)
    rollout.ownership.hand_over()
    in_another_thread(lambda: rollout.step_latents(random_actions(world, 1, 0), [0]))


def test_a_slot_that_is_being_decoded_is_neither_filled_nor_copied_nor_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = tiny_world()
    rollout = played(world, 2)
    latents = rollout.step_latents(random_actions(world, 1, 0), [0])
    state = rollout.snapshot(0)
    has_begun, may_end, real = threading.Event(), threading.Event(), world.decode

    def decode(*arguments: Any) -> Any:
        has_begun.set()
        may_end.wait(10)
        return real(*arguments)

    monkeypatch.setattr(world, "decode", decode)
    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(rollout.decode, latents, [0])
        has_begun.wait(10)
        for work in (
            lambda: rollout.release(0),
            lambda: rollout.restore(0, state),
            lambda: rollout.snapshot(0),
            lambda: rollout.decode(latents, [0]),
        ):
            with pytest.raises(AssertionError, match="decoded"):
                work()
        rollout.step_latents(random_actions(world, 1, 0), [0])
        rollout.restore(1, state)
        may_end.set()
        decoding.result()
    rollout.release(0)
