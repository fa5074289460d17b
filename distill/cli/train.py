"""`lightcone train`: run the stages of a world. Owns how flags change the recipe; `recipes.run` runs the stages."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from distill.cli.numbers import require_at_least, require_positive
from distill.cli.threads import set_threads
from distill.recipes.choice import choose
from distill.recipes.folders import require_writable, world_run
from distill.recipes.identity import begin_run, check_target, is_of_videos, recipe_name
from distill.recipes.run import Run
from distill.recipes.stages import with_steps
from distill.recipes.warm_start import warm_start
from world.catalogue import worlds


def run(args: argparse.Namespace) -> int:
    """Run the stages that are not finished, or the one that was named."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    require_at_least(1, args, "steps")
    require_positive(args, "minutes")
    name, preset = choose(args.world, args.env, args.preset, args.name, videos=args.videos)
    if args.steps is not None:
        preset = with_steps(preset, args.stage, args.steps)
    if args.shipped_stage is not None:
        preset = replace(preset, shipped_stage=args.shipped_stage)
    if args.threads is not None:
        set_threads(args.threads)
    folder, target = world_run(name), args.out or Path("checkpoints") / name
    require_writable(folder)
    check_target(target, name, preset.collect.environment, videos=args.videos is not None or is_of_videos(folder))
    require_writable(target)
    begin_run(folder, name, recipe_name(name, args.preset))
    job = Run(
        name,
        preset,
        folder,
        target,
        videos=args.videos,
        stop_after_s=args.minutes * 60 if args.minutes else None,
        asked_steps=args.steps,
    )
    if args.start is not None:
        warm_start(job, args.start)
    finished = job.stage(args.stage, redo=args.redo) if args.stage else job.all_stages(redo=args.redo)
    print(_outcome(args.stage, job, finished=finished))
    return 0


def _outcome(stage: str | None, job: Run, *, finished: bool) -> str:
    """Return what to say at the end. A world is finished when there is something to play."""
    if not finished:
        return "stopped after the given time; run the same command again to continue"
    if stage not in (None, "export"):
        return f"the stage {stage} is finished; the same command without --stage makes the rest"
    known = worlds().get(job.name)
    shown = job.name if known is not None and known == job.checkpoint.resolve() else job.checkpoint
    return f"finished; `lightcone serve --world {shown}` plays it, `lightcone eval {shown}` measures it"
