"""LightconeEnv against a real server: Gymnasium's own checker, seeds, reward functions and action spaces."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from lightcone_client.gym import LightconeEnv

from server.config import ServerConfig
from server.sessions import pending_requests
from tests.server.serving import RunningServer, serve
from world.checkpoint import World
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[2]


def exclusive_buttons_world() -> World:
    world = tiny_world()
    world.card = replace(world.card, exclusive_buttons=True)
    return world


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending_requests, "INTERVAL_S", 0.0)  # else every reset would wait half a second
        with serve(
            ServerConfig(address_share=1.0, max_sessions=2, num_threads=1),
            {"pixel": tiny_world, "exclusive": exclusive_buttons_world, "wan": partial(tiny_world, config="wan")},
        ) as running:
            yield running


@pytest.mark.parametrize(("world", "actions"), [("exclusive", "buttons"), ("pixel", "buttons"), ("wan", "all")])
def test_gymnasiums_checker_passes(server: RunningServer, world: str, actions: str) -> None:
    env = LightconeEnv(server.url, world, actions="all" if actions == "all" else "buttons", render_mode="rgb_array")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(env, skip_render_check=True)  # that check opens more environments than this server has slots
    finally:
        env.close()


def test_a_seed_repeats_an_episode(server: RunningServer) -> None:
    env = LightconeEnv(server.url, "exclusive", max_steps=3)
    try:
        episodes = []
        for seed in (1, 1, 2):
            first, info = env.reset(seed=seed)
            assert info["run_frame"] == 0
            steps = [env.step(1) for _ in range(3)]
            assert [(step[1], step[2], step[3]) for step in steps] == [(0.0, False, False)] * 2 + [(0.0, False, True)]
            episodes.append(np.stack([first, *(step[0] for step in steps)]))
        assert np.array_equal(episodes[0], episodes[1])
        assert not np.array_equal(episodes[0], episodes[2])
        assert env.observation_space.contains(episodes[0][0])
        assert np.array_equal(env.render(), episodes[2][-1])
    finally:
        env.close()


def test_each_entry_of_an_action_changes_the_picture(server: RunningServer) -> None:
    env = LightconeEnv(server.url, "wan", actions="all", starts=(1,))
    try:
        space = env.action_space
        assert isinstance(space, spaces.Box)
        num = len(env.unwrapped._session.world.buttons)  # type: ignore[attr-defined]  # the world's description
        after = []
        for action in (np.zeros(space.shape), np.eye(space.shape[0])[0], np.eye(space.shape[0])[num]):
            env.reset(seed=0)
            after.append(env.step(action.astype(np.float32))[0].astype(int))
        assert np.abs(after[1] - after[0]).max() > 0, "a button"
        assert np.abs(after[2] - after[0]).max() > 0, "an axis"
    finally:
        env.close()


def test_a_reward_function_gives_reward_and_termination(server: RunningServer) -> None:
    env = LightconeEnv(
        server.url, "exclusive", reward_function=lambda picture: (float(picture.mean()), bool(picture.mean() >= 0))
    )
    try:
        env.reset(seed=0, options={"start": 1})
        picture, reward, terminated, truncated, _ = env.step(0)
        assert (reward, terminated, truncated) == (float(picture.mean()), True, False)
    finally:
        env.close()


def test_the_old_name_of_the_reward_function_still_works(server: RunningServer) -> None:
    with pytest.warns(DeprecationWarning, match="reward_function"):
        env = LightconeEnv(server.url, "exclusive", judge=lambda _picture: (0.5, False))
    try:
        env.reset(seed=0)
        assert env.step(0)[1:3] == (0.5, False)
    finally:
        env.close()


def test_an_action_of_the_wrong_shape_is_rejected(server: RunningServer) -> None:
    env = LightconeEnv(server.url, "pixel")
    try:
        env.reset(seed=0)
        with pytest.raises(ValueError, match=r"action 1: expected one of MultiBinary\(2\)"):
            env.step(1)
    finally:
        env.close()


@pytest.mark.slow
def test_stable_baselines_trains_in_the_environment() -> None:
    from stable_baselines3 import PPO

    worlds = {"pong": ROOT / "checkpoints" / "pong"}
    with serve(ServerConfig(max_sessions=1), worlds) as server:
        env = LightconeEnv(
            server.url, "pong", max_steps=50, reward_function=lambda picture: (float(picture.mean()) / 255, False)
        )
        try:
            model = PPO("CnnPolicy", env, n_steps=250, batch_size=50, device="cpu", seed=0)
            model.learn(2000)
            assert model.num_timesteps >= 2000
        finally:
            env.close()


def test_an_unknown_kind_of_actions_is_rejected_before_connecting() -> None:
    with pytest.raises(ValueError, match="actions 'keys': choose 'buttons' or 'all'"):
        LightconeEnv("http://127.0.0.1:9", "wan", actions="keys")  # type: ignore[arg-type]
