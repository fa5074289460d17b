"""Ten thousand lock-step acts of an agent give ten thousand frames in order, and a second run gives the same ones."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest
from lightcone_client import play

from server.config import ServerConfig
from tests.server.serving import serve
from world.testing import tiny_world


def episode(url: str, num_steps: int) -> str:
    """Return a digest of all frames of an agent that acts at random with a fixed seed."""
    rng, digest = random.Random(11), sha256()
    with play(url, world="pixel", pacing="lockstep", encoding="png", seed=5) as session:
        digest.update(session.frame().payload)
        for step in range(1, num_steps + 1):
            chunk = session.advance(["up"] if rng.random() < 0.5 else ["down"])
            assert [(frame.index, frame.run_frame, frame.applied_seq) for frame in chunk] == [(step, step, step)]
            digest.update(chunk[0].payload)
    return digest.hexdigest()


@pytest.mark.parametrize("num_steps", [150, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_each_act_gives_one_frame_and_a_second_run_gives_the_same(num_steps: int) -> None:
    with serve(ServerConfig(max_sessions=1, num_threads=1), {"pixel": tiny_world}) as server:
        first, second = episode(server.url, num_steps), episode(server.url, num_steps)
    assert first == second
