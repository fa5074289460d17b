"""The fastest settings on this machine: dtype, attention kernel, compiled code and number of threads, measured by whole
steps of the world itself. Owns the measurements and their order, and stores the result for later starts. A result is
valid for one world's configs, machine, PyTorch and compiled code.

The number of threads is chosen for few and for many sessions, on the machine as it is and beside a busy process. It is
what play begins with; `world.rollout.thread_policy` revises it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import torch

from kernels.dispatch import KernelChoice
from kernels.write_attend import native
from world.actions import Actions
from world.checkpoint import World
from world.device import cache_root, has_fast_bf16, machine
from world.rollout.step_threads import ThreadSettings, using_threads
from world.rollout.thread_policy import typical_ms
from world.runtime.ahead_of_time import compiled_transformer, fitting_packages
from world.runtime.busy import busy_processes
from world.runtime.native_attention import has_native_attention, load_native_attention

logger = logging.getLogger(__name__)

STEPS, WARM_STEPS = 12, 3
MIN_GAIN = 1.03
"""A setting replaces the default only if it is this much faster."""
THREAD_BATCHES = (1, 4)
"""Batch sizes for which the number of threads is measured; others take that of the next smaller one."""
THREAD_STEPS, LOST = 5, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """num_threads: the most to use. preferred: what to begin with, by batch size. matmul_attention: None: by the rule
    of `kernels.attention`. compiled: whether the results of `lightcone compile` are used, packages and native
    attention. step_ms: the measured step of one session with one thread, or with the given number."""

    dtype: str
    num_threads: int
    matmul_attention: bool | None
    compiled: bool
    step_ms: float
    preferred: dict[int, int] = field(default_factory=dict)


def tuned(path: str | Path, *, num_threads: int | None = None) -> World:
    """Load the world at `path` with the settings that are fastest here, and set the most threads that it may use for
    the calling thread. num_threads: use this number for all steps. Raises CheckpointError."""
    world = World.load(path)
    if world.device.type != "cpu":
        return world
    choices = _thread_choices(num_threads)
    stored = cache_root() / "tuning" / f"{_key(world, choices)}.json"
    try:
        tuning = _read(stored, choices)
    except (OSError, ValueError, TypeError):
        logger.info("measuring the fastest settings for %r here, once; a busy machine needs longer", world.card.name)
        started = time.perf_counter()
        tuning = _measured(path, choices)
        logger.info("measured the fastest settings in %.1f s: %s", time.perf_counter() - started, tuning)
        try:
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_text(json.dumps(asdict(tuning)) + "\n")
        except OSError as exc:
            logger.warning("the next start will measure again, because the result could not be stored: %s", exc)
    return _applied(path, tuning, choices)


def _thread_choices(fixed: int | None) -> tuple[int, ...]:
    return (fixed,) if fixed else ThreadSettings().choices(torch.get_num_threads())


def _read(stored: Path, choices: Sequence[int]) -> Tuning:
    """Raise OSError, ValueError or TypeError if there is no valid result."""
    tuning = Tuning(**json.loads(stored.read_text()))
    preferred = {int(batch): number for batch, number in dict(tuning.preferred).items()}
    if tuning.dtype not in ("float32", "bfloat16") or not {tuning.num_threads, *preferred.values()} <= set(choices):
        raise ValueError(f"{stored} does not hold settings of this machine")
    return replace(tuning, preferred=preferred)


def _measured(path: str | Path, choices: tuple[int, ...]) -> Tuning:
    """Choose one setting after another, each with the settings chosen before."""
    default = "bfloat16" if has_fast_bf16() else "float32"
    best = Tuning(dtype=default, num_threads=choices[0], matmul_attention=None, compiled=False, step_ms=0.0)
    best = replace(best, step_ms=_step_ms(path, best))
    for dtype in {"bfloat16", "float32"} - {default}:
        best = _faster(path, best, replace(best, dtype=dtype))
    for matmul in (True, False):
        best = _faster(path, best, replace(best, matmul_attention=matmul))
    if _has_compiled_code(path, best):
        best = _faster(path, best, replace(best, compiled=True))
    best = replace(best, num_threads=choices[-1])
    return replace(best, preferred=_preferred(path, best, choices)) if len(choices) > 1 else best


def _has_compiled_code(path: str | Path, tuning: Tuning) -> bool:
    """Return whether `compiled` makes a difference; if not, measuring it would only add noise to the choice."""
    world = World.load(path, dtype=getattr(torch, tuning.dtype))
    return bool(fitting_packages(world.transformer)) or has_native_attention(world.dtype)


def _faster(path: str | Path, best: Tuning, other: Tuning) -> Tuning:
    other = replace(other, step_ms=_step_ms(path, other))
    return other if other.step_ms * MIN_GAIN < best.step_ms else best


def _step_ms(path: str | Path, tuning: Tuning) -> float:
    """Return the shortest of several steps: a disturbance that delays one step does not delay all."""
    with using_threads(tuning.num_threads):
        step = _stepping(_applied(path, tuning, (tuning.num_threads,)), 1)
        return min([step() for _ in range(WARM_STEPS + STEPS)][WARM_STEPS:])


def _preferred(path: str | Path, tuning: Tuning, choices: tuple[int, ...]) -> dict[int, int]:
    """Return the number of threads to begin with, by batch size: the one with the least product of its times alone and
    beside a busy process, so that a gain on the idle machine does not pay for a greater loss beside others."""
    with using_threads(choices[-1]):
        world = _applied(path, tuning, choices)
        world.threads = ThreadSettings(adapts=False)
        steps = {batch: _stepping(world, batch) for batch in THREAD_BATCHES}
        alone_ms = {key: min(times) for key, times in _times(steps, choices).items()}
        try:
            with busy_processes(1):
                beside_ms = {key: typical_ms(times) for key, times in _times(steps, choices).items()}
        except OSError as exc:
            logger.warning("the number of threads is chosen without a busy process, which could not start: %s", exc)
            beside_ms = alone_ms
    return {
        batch: min(choices, key=lambda number: alone_ms[batch, number] * beside_ms[batch, number]) for batch in steps
    }


def _times(steps: dict[int, Callable[[], float]], choices: tuple[int, ...]) -> dict[tuple[int, int], list[float]]:
    """Return milliseconds of several steps by batch size and number of threads; of fewer steps where these take far
    longer than with the first number."""
    times: dict[tuple[int, int], list[float]] = {}
    for batch, step in steps.items():
        for number in choices:
            with using_threads(number):
                times[batch, number] = found = [step()]
                while len(found) < THREAD_STEPS and sum(found) < LOST * sum(times[batch, choices[0]]):
                    found.append(step())
    return times


def _stepping(world: World, batch: int) -> Callable[[], float]:
    """Return a function that runs one step of `batch` sessions and returns its milliseconds."""
    rollout = world.rollout(batch)
    frames = torch.zeros(batch, 1, world.card.height, world.card.width, 3, dtype=torch.uint8)
    held = Actions.none(batch, 1, len(world.card.buttons), len(world.card.axes))
    rollout.start(range(batch), frames, held, range(batch))

    def step() -> float:
        started = time.perf_counter()
        rollout.step(held)
        return (time.perf_counter() - started) * 1e3

    return step


def _applied(path: str | Path, tuning: Tuning, choices: tuple[int, ...]) -> World:
    torch.set_num_threads(tuning.num_threads)
    world = World.load(path, dtype=getattr(torch, tuning.dtype))
    adapts = len(choices) > 1
    world.threads = ThreadSettings(most=tuning.num_threads, preferred=tuning.preferred, adapts=adapts)
    world.compiled = compiled_transformer(world.transformer) if tuning.compiled else None
    native_attention = tuning.compiled and load_native_attention()
    world.kernel_choice = KernelChoice(matmul_attention=tuning.matmul_attention, native_attention=native_attention)
    return world


def _key(world: World, choices: tuple[int, ...]) -> str:
    packages = [has_native_attention(torch.bfloat16) and native.digest(), fitting_packages(world.transformer)]
    configs = [world.codec.to_json(), asdict(world.transformer.config), asdict(world.sampler)]
    return sha256(json.dumps([configs, choices, packages, machine()]).encode()).hexdigest()[:16]
