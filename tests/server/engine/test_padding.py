"""Steps are padded to a bucket, or to a larger size where that is faster."""

from __future__ import annotations

import torch

from server.compilation.parts import sizes_to_compile
from server.engine.model_runner import ModelRunner
from server.engine.padding import Padding
from server.sessions.input_buffer import Sample
from server.sessions.run import StartRequest
from world.rollout.parts import run_to_end
from world.testing import tiny_world

UNCOMPILED_MS = {1: 17.0, 2: 21.0, 3: 25.0, 4: 29.0, 5: 34.0, 6: 40.0, 7: 46.0, 8: 53.0}


def _padded(padding: Padding) -> list[int]:
    return [padding.padded(size) for size in range(1, 9)]


def test_uncompiled_steps_are_not_padded() -> None:
    padding = Padding(8, (), sizes_to_compile(8))
    assert _padded(padding) == list(range(1, 9)), "nothing is measured yet"
    for size, step_ms in UNCOMPILED_MS.items():
        padding.note(size, step_ms)
    assert _padded(padding) == list(range(1, 9))


def test_steps_are_padded_to_a_compiled_size_that_is_faster() -> None:
    padding = Padding(8, (), sizes_to_compile(8))
    for size, step_ms in UNCOMPILED_MS.items():
        padding.note(size, step_ms)
    padding.note(4, 22.0)
    assert _padded(padding) == [1, 2, 4, 4, 5, 6, 7, 8]
    padding.note(8, 38.0)
    assert _padded(padding) == [1, 2, 4, 4, 5, 8, 8, 8], "five take less time as they are"


def test_a_gain_within_the_noise_is_no_reason_to_pad() -> None:
    padding = Padding(2, (), (2,))
    padding.note(1, 10.2)
    padding.note(2, 10.0)
    assert padding.padded(1) == 1


def test_there_are_spare_rows_for_every_size() -> None:
    assert Padding(8, (), sizes_to_compile(8)).num_spare == 3
    assert Padding(6, (), sizes_to_compile(6)).num_spare == 1
    assert Padding(1, (), sizes_to_compile(1)).num_spare == 0
    assert Padding(8, ()).num_spare == 0
    assert Padding(4, (4,)).num_spare == 3


def test_a_padded_step_gives_the_players_what_an_unpadded_one_does() -> None:
    runners = [ModelRunner(tiny_world(), 4, 4, ()) for _ in range(2)]
    for runner in runners:
        runner.warm_up(lambda work: work())
        for size, step_ms in {3: 10.0, 4: 10.0}.items():
            runner.padding.note(size, step_ms)
        for slot in range(3):
            run_to_end(runner.begin(slot, StartRequest(index=0, seed=slot)))
    runners[1].padding.note(4, 5.0)
    plain, padded = (runner.step([Sample(("up",))] * 3, range(3)).latents for runner in runners)
    assert [len(plain), len(padded)] == [3, 4]
    torch.testing.assert_close(padded[:3], plain, atol=1e-4, rtol=1e-4)


def test_given_buckets_are_used_whatever_steps_take() -> None:
    padding = Padding(4, (1, 4))
    padding.note(2, 1.0)
    padding.note(4, 100.0)
    assert [padding.padded(size) for size in range(1, 5)] == [1, 4, 4, 4]
