"""Record play from an environment. Owns the mixture of policies and the split by stream; knows no model.

Each stream has its own seed, so `train/` and `heldout/` share no episode. Within a stream the policy changes every few
seconds: purposeful play where the adapter provides it, random bursts (random actions, each held for a random time), or
no action. At least 30 % of all frames are random bursts, so that later actions do not reveal earlier states.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from distill.data.clips import Dataset, DatasetError, Episode, save_episode, write_dataset_json
from distill.data.environments import (
    Control,
    Environment,
    EnvironmentSpec,
    idle_control,
    make_environment,
    random_control,
)
from distill.data.workers import process_pool
from world.errors import LightconeError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectConfig:
    """How much to record and by which mixture of policies. Held-out streams use seeds far from the training seeds.

    skilled_share, random_share: of the segments; in the rest no button is pressed. segment_frames: range of a segment's
    length. hold_frames_mean: mean length of a random action. override_share: of the frames of skilled play that take a
    random action instead. Raises LightconeError for shares that are too small or add up to more than 1.
    """

    environment: str
    num_train: int = 200
    num_heldout: int = 40
    frames_per_stream: int = 1500
    height: int = 64
    width: int = 64
    seed: int = 0
    skilled_share: float = 0.55
    random_share: float = 0.35
    segment_frames: tuple[int, int] = (30, 150)
    hold_frames_mean: float = 6.0
    override_share: float = 0.05

    def __post_init__(self) -> None:
        if self.random_share < 0.3:
            raise LightconeError(f"random_share {self.random_share}: at least 0.3 of the play must be random bursts")
        if self.skilled_share + self.random_share > 1.0:
            raise LightconeError(f"shares {self.skilled_share} + {self.random_share} exceed 1")


def collect_config(collected: dict[str, Any]) -> CollectConfig:
    """Rebuild the configuration from a dataset's `collected`."""
    return CollectConfig(**{**collected, "segment_frames": tuple(collected["segment_frames"])})


HELDOUT_SEED_OFFSET = 1_000_000


def collect(root: Path, config: CollectConfig, *, workers: int | None = None, quiet: bool = False) -> None:
    """Record every stream of `config` that is missing at `root`, then write `dataset.json`.

    An exception in this process, such as KeyboardInterrupt, ends the recording at once; complete streams are kept.
    Raises DatasetError if `root` holds streams of another environment or frame size.
    """
    jobs = [("train", i, config.seed + i) for i in range(config.num_train)]
    jobs += [("heldout", i, config.seed + HELDOUT_SEED_OFFSET + i) for i in range(config.num_heldout)]
    jobs = [job for job in jobs if not _path(root, job[0], job[1]).exists()]
    spec = make_environment(config.environment, height=config.height, width=config.width).spec
    _check_same_source(root, spec)
    if jobs:
        counts = [sum(job[0] == split for job in jobs) for split in ("train", "heldout")]
        logger.info("recording %d streams for training and %d held out", *counts)
    with process_pool(workers or os.cpu_count() or 1) as pool:
        futures = [pool.submit(_record_job, root, config, *job) for job in jobs]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), desc="collect", unit="stream", disable=quiet):
                future.result()
        except BrokenProcessPool as exc:
            raise DatasetError(
                f"{config.environment} ended the process that recorded it, as by a crash or for want of memory; run "
                "the command again to record the streams that are missing"
            ) from exc
    write_dataset_json(root, spec, asdict(config))


def _check_same_source(root: Path, spec: EnvironmentSpec) -> None:
    if not (root / "dataset.json").exists():
        return
    there = Dataset.open(root).spec
    if (there.name, there.height, there.width) != (spec.name, spec.height, spec.width):
        raise DatasetError(
            f"{root} holds {there.name} at {there.height}x{there.width}, not {spec.name} at "
            f"{spec.height}x{spec.width}: choose another name, or delete the folder"
        )


def _path(root: Path, split: str, index: int) -> Path:
    return root / split / f"episode_{index:05d}.npz"


def _record_job(root: Path, config: CollectConfig, split: str, index: int, seed: int) -> None:
    environment = make_environment(config.environment, height=config.height, width=config.width)
    save_episode(_path(root, split, index), record(environment, config, seed))


def record(environment: Environment, config: CollectConfig, seed: int) -> Episode:
    """Play one stream of `config.frames_per_stream` frames; the first comes from the reset, without an action."""
    rng = np.random.default_rng(seed)
    policy = mixed_policy(environment, config, rng)
    controls, steps = [idle_control(environment.spec)], [environment.reset(seed)]
    while len(steps) < config.frames_per_stream:
        controls.append(policy())
        steps.append(environment.step(controls[-1]))
    return Episode(
        frames=np.stack([s.frame for s in steps]),
        buttons=np.stack([c.buttons for c in controls]),
        axes=np.stack([c.axes for c in controls]),
        rewards=np.array([s.reward for s in steps], np.float32),
        dones=np.array([s.done for s in steps], np.bool_),
        oracle=np.stack([s.oracle for s in steps]),
    )


def mixed_policy(environment: Environment, config: CollectConfig, rng: np.random.Generator) -> Callable[[], Control]:
    """Return a function that returns the next control, switching between skilled play, random bursts and idling."""
    remaining, mode, held = 0, "idle", idle_control(environment.spec)

    def act() -> Control:
        nonlocal remaining, mode, held
        if remaining == 0:
            remaining = int(rng.integers(*config.segment_frames))
            draw = rng.random()
            mode = "random" if draw < config.random_share else "skilled"
            mode = "idle" if draw >= config.random_share + config.skilled_share else mode
        remaining -= 1
        if mode == "idle":
            return idle_control(environment.spec)
        skilled = environment.skilled_control(rng) if mode == "skilled" else None
        if skilled is not None and rng.random() >= config.override_share:
            return skilled
        if rng.random() < 1.0 / config.hold_frames_mean:
            held = random_control(environment.spec, rng)
        return held

    return act
