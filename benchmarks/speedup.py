"""`lightcone bench speedup`: what distillation buys, teacher against student in one run. Owns the timing and the ratio.

Time is the transformer's, for one session, per generated second of the world; decoding is the same for both and left
out. Teacher: a clip at a time, `--prefix` frames given and the rest denoised by `--teacher-steps` unguided Euler steps;
interactively a new action arrives with every frame, so each new frame costs a whole clip. Runs alternate, medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from distill.command_train import choose
from distill.evaluation.clips import (
    Starts,
    denoise_clip,
    held_out_starts,
    in_batches,
    student_generator,
    teacher_generator,
)
from distill.evaluation.evaluate import held_out, own_figures
from distill.evaluation.quality import psnr
from distill.runs import world_run
from world.rollout import action_vectors
from world.world import World

CHEAPER_STEPS = (2, 4, 8, 16)
NEAR_BEST = 0.99


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--world", default="pong", help="a checkpoint that holds its teacher (default: pong)")
    parser.add_argument("--teacher-steps", type=int, default=50, help="the teacher's denoising steps")
    parser.add_argument("--prefix", type=int, default=4, help="latent frames a teacher's clip is given")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each; the median counts")
    parser.add_argument("--starts", type=int, default=64, help="held-out starts for the comparison of quality")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    folder = Path("checkpoints") / args.world
    student, teacher = World.load(folder), World.load(folder, role="teacher")
    env = None if args.world == "pong" else student.card.provenance.get("environment")
    _, preset = choose(None if env else args.world, env, "quick", args.world)
    new_frames = teacher.transformer.config.window_frames + 1 - args.prefix
    starts = held_out_starts(
        held_out(preset, world_run(args.world)), args.starts, student.context_pixel_frames, new_frames, seed=1
    )
    steps = sorted({*CHEAPER_STEPS, args.teacher_steps})
    times = time_both(student, teacher, starts, args.prefix, steps, args.repeats)
    quality = compare_quality(student, teacher, starts, args.prefix, steps)
    best = max(quality["teacher"].values())
    cheapest = min(count for count in steps if quality["teacher"][count] >= NEAR_BEST * best)
    report: dict[str, Any] = {
        "world": args.world,
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
        "quality_ratio": quality["student"] / best,
        "quality": quality,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {student.dtype}",
    }
    print(json.dumps(report, indent=1) if args.json else "\n".join(f"{k:<36}{v}" for k, v in report.items()))
    return 0


@torch.inference_mode()
def time_both(
    student: World, teacher: World, starts: Starts, prefix: int, steps: list[int], repeats: int
) -> dict[Any, float]:
    """Median milliseconds: `student` per frame, and the teacher per clip by step count."""
    one = starts.head(1)
    rollout = student.start(one.context, one.context_actions)
    latents, _ = teacher.encode(one.context)
    vectors = action_vectors(one.actions, teacher.codec.config.temporal_patch)
    vectors = torch.cat([vectors.new_zeros(1, prefix, vectors.shape[2]), vectors], dim=1)
    generator = torch.Generator().manual_seed(0)
    samples: dict[Any, list[float]] = {"student": [], **{count: [] for count in steps}}
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        for frame in range(one.actions.num_frames):
            rollout.step_latents(one.actions.frames(frame, frame + 1))
        samples["student"].append((time.perf_counter() - begun) * 1e3 / one.actions.num_frames)
        for count in steps:
            begun = time.perf_counter()
            denoise_clip(teacher, latents[:, -prefix:], vectors, count, student.sampler.shift, generator)
            samples[count].append((time.perf_counter() - begun) * 1e3)
    return {key: statistics.median(values[1:]) for key, values in samples.items()}  # the first run warms up


def compare_quality(student: World, teacher: World, starts: Starts, prefix: int, steps: list[int]) -> dict[str, Any]:
    """Mean PSNR over a clip's new frames: the student's and the teacher's by step count; for worlds with a reader its
    figures beside it."""
    figures: dict[str, Any] = {"teacher": {}, "own": {}}
    frames = in_batches(student_generator(student), starts, starts.actions)
    figures["student"] = float(psnr(frames, starts.truth).mean())
    figures["own"]["student"] = own_figures(student.card.name, starts, frames)
    for count in steps:
        generator = teacher_generator(teacher, num_steps=count, shift=student.sampler.shift, prefix=prefix)
        frames = in_batches(generator, starts, starts.actions)
        figures["teacher"][count] = float(psnr(frames, starts.truth).mean())
        figures["own"][f"teacher, {count} steps"] = own_figures(student.card.name, starts, frames)
    return figures
