"""Doom's figures, from trained probes and from the geometry of its turns. Owns the figures that only Doom has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.clips import Dataset
from distill.data.collect import CollectConfig, collect
from distill.data.environments import Control, Environment, idle_control, make_environment
from distill.data.environments.doom import MAX_LOOK_DEGREES, TURN_DEGREES
from distill.evaluation.discriminator import accuracy, train_discriminator
from distill.evaluation.generators import in_batches, reconstruct, student_generator
from distill.evaluation.inverse_dynamics import balanced_accuracy, train_inverse_dynamics
from distill.evaluation.starts import Starts, held_out_starts
from world.actions import Actions
from world.checkpoint import World

PROBE_SEED, CIRCLE_SEED = 7_000_000, 9_500_000
NUM_CLASSES = (3, 3)
CHANCE = 1 / 3
LEAST_TURN_DEGREES = 2.5
PROBE_FOLDER = "readers"
"""Start of the name of the folder on disk: probes were called readers when existing recordings were made."""
FULL_CIRCLE = round(360.0 / TURN_DEGREES)
NUM_HEADINGS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeConfig:
    """How much data the probes are trained on, and how many full turns are measured.

    num_streams, stream_frames: recorded for the probes only. num_clips: cut from them. num_generated: clips generated
    for the discriminator. discriminator_seconds: length of the clips that it compares.
    """

    num_streams: int = 96
    stream_frames: int = 800
    num_clips: int = 1024
    num_generated: int = 192
    discriminator_seconds: float = 3.0
    num_circles: int = 96


def doom_figures(
    world: World,
    recorded: CollectConfig,
    folder: Path,
    starts: Starts,
    frames: Tensor,
    config: ProbeConfig | None = None,
) -> dict[str, float]:
    """Return the figures of `frames`, the student's continuations of held-out `starts`.

    The probes' training data is recorded in `folder` on first use, with its own seeds.
    """
    config = config or ProbeConfig()
    training = _training_clips(world, recorded, folder, config, starts.truth.shape[1])
    figures = _inverse_dynamics(world, training, starts, frames)
    figures |= _real_or_generated(world, training, starts, frames, config)
    figures["full_circle_share"] = full_circle_share(world, recorded, config.num_circles)
    return figures


def intents(actions: Actions) -> Tensor:
    """Return the intended turn (0 left, 1 none, 2 right) and walk (0 back, 1 none, 2 forward): int64 `n t 2`."""
    forward, back, left, right = actions.buttons.long().unbind(-1)
    degrees = TURN_DEGREES * (right - left) + MAX_LOOK_DEGREES * actions.axes[..., 0].clamp(-1.0, 1.0)
    turn = 1 + (degrees > LEAST_TURN_DEGREES).long() - (degrees < -LEAST_TURN_DEGREES).long()
    return torch.stack([turn, 1 + forward - back], dim=-1)


def _training_clips(
    world: World, recorded: CollectConfig, folder: Path, config: ProbeConfig, num_frames: int
) -> Starts:
    size = f"{recorded.height}x{recorded.width}"
    root = folder / f"{PROBE_FOLDER}_{size}_{config.num_streams}x{config.stream_frames}"
    if not (root / "dataset.json").exists():
        streams = replace(recorded, num_train=0, num_heldout=config.num_streams, seed=PROBE_SEED)
        collect(root, replace(streams, frames_per_stream=config.stream_frames))
    return held_out_starts(Dataset.open(root), config.num_clips, world.context_pixel_frames, num_frames, seed=1)


def _inverse_dynamics(world: World, training: Starts, starts: Starts, frames: Tensor) -> dict[str, float]:
    network = train_inverse_dynamics(reconstruct(world, training.truth), intents(training.actions), NUM_CLASSES)
    labels = intents(starts.actions)
    figures: dict[str, float] = {}
    for name, clips in (
        ("real", starts.truth),
        ("reconstructed", reconstruct(world, starts.truth)),
        ("generated", frames),
    ):
        scores = balanced_accuracy(network, clips, labels)
        figures |= {f"idm_turn_{name}": scores[0], f"idm_walk_{name}": scores[1]}
        figures[f"idm_accuracy_{name}"] = float(np.mean(scores))
    generated, real = figures["idm_accuracy_generated"], figures["idm_accuracy_real"]
    return figures | {"idm_accuracy_ratio": (generated - CHANCE) / max(real - CHANCE, 1e-6)}


def _real_or_generated(
    world: World, training: Starts, starts: Starts, frames: Tensor, config: ProbeConfig
) -> dict[str, float]:
    num = min(round(config.discriminator_seconds * world.card.fps), frames.shape[1])
    some = training.head(config.num_generated)
    generated = in_batches(student_generator(world), some, some.actions.frames(0, num))
    real, truth = training.truth[:, :num], starts.truth[:, :num]
    return {
        "real_or_generated_accuracy": accuracy(train_discriminator(real, generated), truth, frames[:, :num]),
        "real_or_real_accuracy": accuracy(train_discriminator(real[::2], real[1::2]), truth[::2], truth[1::2]),
    }


def full_circle_share(world: World, recorded: CollectConfig, num: int) -> float:
    """Return the share of full turns in place whose last view is nearest to the first view, among 16 headings."""
    environment = make_environment("doom", height=recorded.height, width=recorded.width)
    rng = np.random.default_rng(CIRCLE_SEED)
    turns = [full_turn(environment, world.context_pixel_frames, CIRCLE_SEED + i, rng) for i in range(num)]
    context = torch.from_numpy(np.stack([frames[: world.context_pixel_frames] for frames, _ in turns]))
    views = np.stack([frames[world.context_pixel_frames :] for frames, _ in turns])  # one full turn, n t h w 3
    buttons = torch.from_numpy(np.stack([buttons for _, buttons in turns]))
    actions = Actions(buttons, torch.zeros(*buttons.shape[:2], 1))
    past, future = actions.frames(0, world.context_pixel_frames), actions.frames(world.context_pixel_frames)
    last_views = student_generator(world)(context, past, future)[:, -1].numpy()
    pairs = zip(last_views, views, strict=True)
    return float(np.mean([nearest(end, headings(seen)) == NUM_HEADINGS - 1 for end, seen in pairs]))


def headings(turn: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the views of one full turn at `NUM_HEADINGS` evenly spaced headings; the last is the initial heading."""
    places = np.round(np.arange(1, NUM_HEADINGS + 1) * len(turn) / NUM_HEADINGS).astype(np.int64) - 1
    chosen: NDArray[np.uint8] = turn[places]
    return chosen


def nearest(view: NDArray[np.uint8], others: NDArray[np.uint8]) -> int:
    """Return the index of the picture in `n h w 3` that is nearest to `view` `h w 3` by mean squared error."""
    error = np.square(others.astype(np.float32) - view.astype(np.float32)).mean(axis=(1, 2, 3))
    return int(error.argmin())


def full_turn(
    environment: Environment, context_frames: int, seed: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Record a full turn at a random place, after standing still for the context: frames `t h w 3`, buttons `t 4`."""
    idle = idle_control(environment.spec)
    environment.reset(seed)
    while True:
        walked = [environment.step(environment.skilled_control(rng) or idle) for _ in range(int(rng.integers(30, 300)))]
        side = 2 + int(rng.integers(2))
        turning = Control(np.arange(4) == side, idle.axes)
        controls = [idle] * context_frames + [turning] * FULL_CIRCLE
        steps = [environment.step(control) for control in controls]
        if not any(step.done for step in (walked[-1], *steps)):
            return np.stack([s.frame for s in steps]), np.stack([c.buttons for c in controls])
