"""The fastest settings on this machine: dtype, attention kernel, number of threads and compiled code, measured by whole
steps of the world itself. Owns the measurements and their order, and stores the result for later starts. A result is
valid for one world's configs, machine, PyTorch and compiled code.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch

from kernels.dispatch import KernelChoice
from kernels.write_attend import native
from world.actions import Actions
from world.checkpoint import World
from world.device import cache_root, has_fast_bf16, machine
from world.runtime.ahead_of_time import compiled_transformer, fitting_packages
from world.runtime.native_attention import has_native_attention, load_native_attention

logger = logging.getLogger(__name__)

STEPS, WARM_STEPS = 12, 3
MIN_GAIN = 1.03
"""A setting replaces the default only if it is this much faster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """matmul_attention: None: by the rule of `kernels.attention`. compiled: whether the results of `lightcone compile`
    are used, packages and native attention. step_ms: the measured step of one session."""

    dtype: str
    num_threads: int
    matmul_attention: bool | None
    compiled: bool
    step_ms: float


def tuned(path: str | Path, *, num_threads: int | None = None) -> World:
    """Load the world at `path` with the settings that are fastest here. Sets the number of threads for the calling
    thread and stores it in `World.num_threads`. num_threads: fixes that number. Raises CheckpointError."""
    world = World.load(path)
    if world.device.type != "cpu":
        return world
    thread_choices = (num_threads,) if num_threads else tuple(sorted({1, torch.get_num_threads()}))
    stored = cache_root() / "tuning" / f"{_key(world, thread_choices)}.json"
    try:
        tuning = Tuning(**json.loads(stored.read_text()))
    except (OSError, ValueError, TypeError):
        started = time.perf_counter()
        tuning = _measured(path, thread_choices)
        logger.info("measured the fastest settings in %.1f s: %s", time.perf_counter() - started, tuning)
        try:
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_text(json.dumps(asdict(tuning)) + "\n")
        except OSError as exc:
            logger.warning("the next start will measure again, because the result could not be stored: %s", exc)
    return _applied(path, tuning)


def _measured(path: str | Path, thread_choices: tuple[int, ...]) -> Tuning:
    """Choose one setting after another, each with the settings chosen before."""
    default = "bfloat16" if has_fast_bf16() else "float32"
    best = Tuning(dtype=default, num_threads=thread_choices[0], matmul_attention=None, compiled=False, step_ms=0.0)
    best = replace(best, step_ms=_step_ms(path, best))
    for dtype in {"bfloat16", "float32"} - {default}:
        best = _faster(path, best, replace(best, dtype=dtype))
    for matmul in (True, False):
        best = _faster(path, best, replace(best, matmul_attention=matmul))
    for threads in thread_choices:
        for compiled in (False, True):
            other = replace(best, num_threads=threads, compiled=compiled)
            if not compiled or _has_compiled_code(path, other):
                best = _faster(path, best, other)
    return best


def _has_compiled_code(path: str | Path, tuning: Tuning) -> bool:
    """Return whether `compiled` makes a difference; if not, measuring it would only add noise to the choice."""
    world = World.load(path, dtype=getattr(torch, tuning.dtype))
    with _threads(tuning.num_threads):
        return bool(fitting_packages(world.transformer)) or has_native_attention(world.dtype)


def _faster(path: str | Path, best: Tuning, other: Tuning) -> Tuning:
    other = replace(other, step_ms=_step_ms(path, other))
    return other if other.step_ms * MIN_GAIN < best.step_ms else best


def _step_ms(path: str | Path, tuning: Tuning) -> float:
    """Return the shortest of several steps: a disturbance that delays one step does not delay all."""
    with _threads(tuning.num_threads):
        world = _applied(path, tuning)
        rollout = world.rollout(1)
        frames = torch.zeros(1, 1, world.card.height, world.card.width, 3, dtype=torch.uint8)
        held = Actions.none(1, 1, len(world.card.buttons), len(world.card.axes))
        rollout.start([0], frames, held, [0])
        times = []
        for _ in range(WARM_STEPS + STEPS):
            started = time.perf_counter()
            rollout.step(held)
            times.append((time.perf_counter() - started) * 1e3)
        return min(times[WARM_STEPS:])


def _applied(path: str | Path, tuning: Tuning) -> World:
    torch.set_num_threads(tuning.num_threads)
    world = World.load(path, dtype=getattr(torch, tuning.dtype))
    world.num_threads = tuning.num_threads
    world.compiled = compiled_transformer(world.transformer) if tuning.compiled else None
    native_attention = tuning.compiled and load_native_attention()
    world.kernel_choice = KernelChoice(matmul_attention=tuning.matmul_attention, native_attention=native_attention)
    return world


def _key(world: World, thread_choices: tuple[int, ...]) -> str:
    packages: list[object] = [has_native_attention(torch.bfloat16) and native.digest()]
    for number in thread_choices:
        with _threads(number):
            packages.append(fitting_packages(world.transformer))
    configs = [world.codec.to_json(), asdict(world.transformer.config), asdict(world.sampler)]
    return sha256(json.dumps([configs, thread_choices, packages, machine()]).encode()).hexdigest()[:16]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
