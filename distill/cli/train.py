"""`lightcone train`: run the stages of a world. Owns how flags change the recipe; `recipes.run` runs the stages."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from distill.recipes.choice import choose
from distill.recipes.folders import world_run
from distill.recipes.preset import Preset
from distill.recipes.run import Run
from distill.recipes.warm_start import warm_start
from world.errors import LightconeError


def run(args: argparse.Namespace) -> int:
    """Run the stages that are not finished, or the one that was named."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    name, preset = choose(args.world, args.env, args.preset, args.name, videos=args.videos)
    if args.steps is not None:
        preset = with_steps(preset, args.stage, args.steps)
    job = Run(
        name,
        preset,
        world_run(name),
        args.out or Path("checkpoints") / name,
        videos=args.videos,
        stop_after_s=args.minutes * 60 if args.minutes else None,
    )
    if args.start is not None:
        warm_start(job, args.start)
    finished = job.stage(args.stage) if args.stage else job.all_stages()
    if finished:
        print(f"finished; `lightcone serve --world {name}` plays it, `lightcone eval {name}` measures it")
    else:
        print("stopped after the given time; run the same command again to continue")
    return 0


def with_steps(preset: Preset, stage: str | None, steps: int) -> Preset:
    """Return the preset with another number of steps for one stage. Raises LightconeError unless the stage trains."""
    key = f"{stage}_trainer"
    if stage is None or getattr(preset, key, None) is None:
        raise LightconeError(f"--steps needs a --stage that trains; {stage or 'none'} does not")
    return replace(preset, **{key: replace(getattr(preset, key), num_steps=steps)})
