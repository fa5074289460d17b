"""`lightcone bench speedup`: the gain of distillation, teacher and student in one run. Owns the timing and the ratios.

Measured is the time of the transformer for one session; decoding is the same for both and left out. The teacher
generates clip by clip: `--prefix` frames are given and the rest is denoised by `--teacher-steps` unguided Euler steps.
In interactive use a new action arrives with every frame, so each new frame costs the teacher a whole clip. Runs of
teacher and student alternate; medians are reported.

A speedup is meaningful only at similar quality: `distill.evaluation.probes.quality` over the new frames of one
teacher's clip, with copying the last picture as the lower bound. The same figure selects the teacher's cheapest number
of steps near its best.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from typing import Any

import torch

from distill.evaluation.evaluate import held_out
from distill.evaluation.generators import (
    TEACHER_PREFIX,
    clip_frames,
    copy_last,
    denoise_clip,
    fitting_prefix,
    in_batches,
    student_generator,
    teacher_generator,
)
from distill.evaluation.probes import probe_figures, quality
from distill.evaluation.starts import Starts, held_out_starts
from distill.recipes.choice import recipe_of
from distill.recipes.folders import world_run
from world.catalogue import find
from world.checkpoint import World
from world.rollout.inputs import action_vectors
from world.rollout.step_threads import ThreadSettings

CHEAPER_STEPS = (2, 4, 8, 16)
NEAR_BEST = 0.99


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument("--world", default="pong", help="a checkpoint that includes its teacher (default: pong)")
    parser.add_argument("--teacher-steps", type=int, default=50, help="denoising steps of the teacher (default: 50)")
    parser.add_argument(
        "--prefix", type=int, help=f"given latent frames of a teacher's clip (default: {TEACHER_PREFIX}, at most half)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each, of which the median counts")
    parser.add_argument("--starts", type=int, default=64, help="held-out starts for comparing quality (default: 64)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Measure speed and quality and print the report."""
    folder = find(args.world)
    student, teacher = World.load(folder), World.load(folder, role="teacher")
    student.threads = ThreadSettings(adapts=False)  # both use the number that the report names
    name = student.card.name
    prefix = fitting_prefix(teacher, args.prefix)
    new_frames = clip_frames(teacher) - prefix
    dataset = held_out(student.card, recipe_of(student.card), world_run(name))
    starts = held_out_starts(dataset, args.starts, student.context_pixel_frames, new_frames, seed=1)
    steps = sorted({*CHEAPER_STEPS, args.teacher_steps})
    times = time_both(student, teacher, starts, prefix, steps, args.repeats)
    found = compare_quality(student, teacher, starts, prefix, steps)
    best, floor = max(found["teacher"].values()), found["copy_last"]
    cheapest = min(count for count in steps if found["teacher"][count] >= best - (1 - NEAR_BEST) * abs(best))
    report: dict[str, Any] = {
        "world": name,
        "teacher_steps": args.teacher_steps,
        "student_steps": student.sampler.num_steps,
        "student_ms_per_frame": times["student"],
        "teacher_ms_per_clip": times[args.teacher_steps],
        "new_frames_per_clip": new_frames,
        "speedup_clip": times[args.teacher_steps] / new_frames / times["student"],
        "speedup": times[args.teacher_steps] / times["student"],
        "teacher_cheapest_near_best_steps": cheapest,
        "speedup_clip_at_cheapest": times[cheapest] / new_frames / times["student"],
        "speedup_at_cheapest": times[cheapest] / times["student"],
        "quality_ratio": _share(found["student"], best),
        "quality_ratio_copy_last": _share(floor, best),
        "quality_gain_ratio": _share(found["student"] - floor, best - floor),
        "quality": found,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {student.device}, {student.dtype}",
    }
    print(json.dumps(report, indent=1) if args.json else "\n".join(f"{k:<36}{v}" for k, v in report.items()))
    return 0


def _share(value: float, best: float) -> float:
    """Return value / best; NaN if the teacher itself gains nothing."""
    return value / best if best > 0 else float("nan")


@torch.inference_mode()
def time_both(
    student: World, teacher: World, starts: Starts, prefix: int, steps: list[int], repeats: int
) -> dict[Any, float]:
    """Return median milliseconds: `student` per frame, and the teacher per clip by its number of steps."""
    start = starts.head(1)
    rollout = student.start(start.context, start.context_actions)
    latents, _ = teacher.encode(start.context)
    vectors = action_vectors(start.actions, teacher.codec.temporal_patch).to(teacher.device)
    vectors = torch.cat([vectors.new_zeros(1, prefix, vectors.shape[2]), vectors], dim=1)
    generator = torch.Generator().manual_seed(0)
    samples: dict[Any, list[float]] = {"student": [], **{count: [] for count in steps}}
    for _ in range(repeats + 1):
        began = time.perf_counter()
        for frame in range(start.actions.num_frames):
            rollout.step_latents(start.actions.frames(frame, frame + 1))
        _wait(student)
        samples["student"].append((time.perf_counter() - began) * 1e3 / start.actions.num_frames)
        for count in steps:
            began = time.perf_counter()
            denoise_clip(teacher, latents[:, -prefix:], vectors, count, student.sampler.shift, generator)
            _wait(teacher)
            samples[count].append((time.perf_counter() - began) * 1e3)
    return {key: statistics.median(values[1:]) for key, values in samples.items()}  # the first run warms up


def _wait(world: World) -> None:
    """Wait until the device has finished: CUDA calls are asynchronous."""
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def compare_quality(student: World, teacher: World, starts: Starts, prefix: int, steps: list[int]) -> dict[str, Any]:
    """Return the quality over a clip's new frames of student, teacher (by number of steps) and copying.

    own: additional figures of worlds with probes.
    """
    card = student.card
    frames = in_batches(student_generator(student), starts, starts.actions)
    figures: dict[str, Any] = {
        "student": quality(card, starts, frames),
        "teacher": {},
        "copy_last": quality(card, starts, copy_last(starts)),
        "own": {"student": probe_figures(card, starts, frames)},
    }
    for count in steps:
        generator = teacher_generator(teacher, num_steps=count, shift=student.sampler.shift, prefix=prefix)
        frames = in_batches(generator, starts, starts.actions)
        figures["teacher"][count] = quality(card, starts, frames)
        figures["own"][f"teacher, {count} steps"] = probe_figures(card, starts, frames)
    return figures
