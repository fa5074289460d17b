"""A budget in bytes decides how far a session can go back and what is an exact copy, and is told on the wire."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from server.engine.session_memory import session_memory
from server.sessions.action_log import ActionLog
from server.sessions.branches import MAX_BRANCHES, Branch, BranchRegistry, Origin
from server.sessions.lock import EngineLock
from server.wire.protocol import Fork, Forked, Rewind
from tests.server.raw import hello, raw_client
from tests.server.resuming import CONFIG, WORLDS, acted, resuming, settled
from tests.server.serving import serve
from world import RolloutState
from world.rollout.memory import kv_bytes, timeline_bytes
from world.testing import tiny_world

GIB = 2**30


def test_the_default_budget_is_enough_for_small_worlds() -> None:
    world = tiny_world()
    memory = session_memory(world, CONFIG.timeline_frames, CONFIG.past_bytes)
    assert (memory.timeline_frames, memory.copies_kv) == (CONFIG.timeline_frames, True)
    assert memory.timeline_chunks == CONFIG.timeline_frames + 128


def test_a_smaller_budget_cuts_what_a_player_can_go_back_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    world = tiny_world()
    config = world.transformer.config
    memory = session_memory(world, 600, timeline_bytes(config, world.dtype, 300))
    assert 300 - 128 <= memory.timeline_frames < 600
    assert timeline_bytes(config, world.dtype, memory.timeline_chunks) <= timeline_bytes(config, world.dtype, 300)
    assert "can go back" in caplog.text
    none = session_memory(world, 600, kv_bytes(config, world.dtype) - 1)
    assert (none.timeline_frames, none.timeline_chunks, none.copies_kv) == (0, 0, False)


async def test_the_budget_is_told_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    world = tiny_world()
    budget = timeline_bytes(world.transformer.config, world.dtype, 130)
    caplog.set_level(logging.WARNING)
    with serve(replace(CONFIG, session_bytes=budget), {"pixel": tiny_world}) as server:
        async with raw_client(server.url, hello(pacing="lockstep")) as client:
            limits = client.welcome.limits
            assert limits.session_bytes == budget
            assert limits.timeline_frames == client.welcome.world.timeline_frames
            assert 0 < limits.timeline_frames < 40
            await client.play(1)
            await acted(client, range(1, 61))
            await client.send(Rewind(seq=1, run_frame=60 - limits.timeline_frames - 1))
            assert (await client.error()).code == "unknown_frame"
            await client.send(Rewind(seq=2, run_frame=60 - limits.timeline_frames))
            assert (await client.play(1))[0].run_frame == 60 - limits.timeline_frames


async def test_a_world_whose_kv_does_not_fit_is_forked_and_suspended_without_it() -> None:
    """A branch shows its frame and plays on; a suspended session begins a new run where it was."""
    with serve(replace(CONFIG, session_bytes=64, hold_s=0.0), WORLDS) as server:
        async with raw_client(server.url, hello(pacing="lockstep")) as client:
            assert client.welcome.limits.timeline_frames == 0
            await client.play(1)
            seen, welcome = await acted(client, range(1, 7)), client.welcome
            await client.send(Fork(seq=1))
            while not isinstance(forked := await client.receive(), Forked):
                pass
            async with raw_client(server.url, hello(pacing="lockstep", start={"branch": forked.ticket})) as other:
                assert (await other.play(1))[0].run_frame == 6
                assert (await acted(other, range(1, 3)))[-1].run_frame == 8
        await settled(server, welcome.session, hold_s=0.0)
        async with raw_client(server.url, resuming(welcome, seen[-1].index)) as back:
            picture = (await back.play(1))[0]
            assert (picture.kind, picture.run, picture.run_frame) == ("start", 1, 6)
            assert picture.index == seen[-1].index + 1


# ---- branches


def branch(num_bytes: int) -> Branch:
    empty = torch.zeros(0, 1, 1, 1)
    state = RolloutState(0, 1, 1, empty, empty.flatten(1), (), {}, (torch.zeros(num_bytes // 4),))
    return Branch(world="tiny", state=state, run_frame=0, origin=Origin(0, 0), log=ActionLog())


def test_one_address_displaces_its_own_branches_first() -> None:
    lock = EngineLock()
    with lock:
        branches = BranchRegistry(lock, GIB)
        mine = branches.put(branch(4), 0.0, "mine")
        others = [branches.put(branch(4), 0.0, "other") for _ in range(3 * MAX_BRANCHES)]
        assert branches.get(mine, "tiny", 1.0).run_frame == 0
        assert [ticket for ticket in others if ticket in branches._branches] == others[-MAX_BRANCHES // 4 :]


def test_branches_fit_into_their_memory() -> None:
    lock = EngineLock()
    with lock:
        branches = BranchRegistry(lock, 4000)
        tickets = [branches.put(branch(900), 0.0, f"address {number}") for number in range(6)]
        assert [ticket in branches._branches for ticket in tickets] == [False, False, True, True, True, True]
        large = branches.put(branch(1200), 0.0, "another")
        assert branches.get(large, "tiny", 1.0).state.kv is None
