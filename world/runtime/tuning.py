"""What suits this machine: dtype, form of attention, number of threads and compiled code, by whole steps of the world
itself. Owns the measuring and the order of the questions, and keeps the answers, so that a later start need not ask.
They hold for one world's configs, machine, PyTorch and compiled code.
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

from kernels.attention import prefer_matmul
from kernels.write_attend import native
from world.actions import Actions
from world.checkpoint import World
from world.device import cache_root, has_fast_bf16, machine
from world.runtime.ahead_of_time import compiled_transformer, fitting_packages
from world.runtime.native_attention import has_native_attention, use_native_attention

logger = logging.getLogger(__name__)

STEPS, WARM_STEPS = 12, 3
GAIN = 1.03
"""An answer other than the usual one must be this much faster."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """matmul_attention: None is the rule of `kernels.attention`. compiled: whether what `lightcone compile` made is
    used, packages and attention. step_ms: of one session, as it was measured."""

    dtype: str
    num_threads: int
    matmul_attention: bool | None
    compiled: bool
    step_ms: float


def tuned(path: str | Path, *, num_threads: int | None = None) -> World:
    """The world at `path` as it is fastest here; `World.num_threads` says in how many threads, which is set for the
    calling one. num_threads: leaves no choice of it. Raises CheckpointError."""
    world = World.load(path)
    if world.device.type != "cpu":
        return world
    choices = (num_threads,) if num_threads else tuple(sorted({1, torch.get_num_threads()}))
    kept = cache_root() / "tuning" / f"{_key(world, choices)}.json"
    try:
        tuning = Tuning(**json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError):
        started = time.perf_counter()
        tuning = _measured(path, choices)
        logger.info("measured what is fastest here in %.1f s: %s", time.perf_counter() - started, tuning)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(asdict(tuning)) + "\n")
        except OSError as exc:
            logger.warning("the next start will measure again, since this could not be kept: %s", exc)
    return _applied(path, tuning)


def _measured(path: str | Path, choices: tuple[int, ...]) -> Tuning:
    """One question after the other, each with the answers before."""
    usual = "bfloat16" if has_fast_bf16() else "float32"
    best = Tuning(dtype=usual, num_threads=choices[0], matmul_attention=None, compiled=False, step_ms=0.0)
    best = replace(best, step_ms=_step_ms(path, best))
    for dtype in {"bfloat16", "float32"} - {usual}:
        best = _faster(path, best, replace(best, dtype=dtype))
    for matmul in (True, False):
        best = _faster(path, best, replace(best, matmul_attention=matmul))
    for threads in choices:
        for compiled in (False, True):
            best = _faster(path, best, replace(best, num_threads=threads, compiled=compiled))
    return best


def _faster(path: str | Path, best: Tuning, other: Tuning) -> Tuning:
    other = replace(other, step_ms=_step_ms(path, other))
    return other if other.step_ms * GAIN < best.step_ms else best


def _step_ms(path: str | Path, tuning: Tuning) -> float:
    """The least of some steps: what stands in the way of one does not stand in the way of all."""
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
    prefer_matmul(tuning.matmul_attention)
    world = World.load(path, dtype=getattr(torch, tuning.dtype))
    world.num_threads = tuning.num_threads
    world.compiled = compiled_transformer(world.transformer) if tuning.compiled else None
    use_native_attention(tuning.compiled)
    return world


def _key(world: World, choices: tuple[int, ...]) -> str:
    packages: list[object] = [has_native_attention(torch.bfloat16) and native.digest()]
    for number in choices:
        with _threads(number):
            packages.append(fitting_packages(world.transformer))
    configs = [asdict(world.codec.config), asdict(world.transformer.config), asdict(world.sampler)]
    return sha256(json.dumps([configs, choices, packages, machine()]).encode()).hexdigest()[:16]


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
