"""`lightcone train`: run the stages of a world. Owns how flags change the recipe; `recipes.run` runs the stages."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from distill.recipes.choice import choose
from distill.recipes.folders import world_run
from distill.recipes.run import Run
from distill.recipes.stages import with_steps
from distill.recipes.warm_start import warm_start


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
    finished = job.stage(args.stage, redo=args.redo) if args.stage else job.all_stages(redo=args.redo)
    if finished:
        print(f"finished; `lightcone serve --world {name}` plays it, `lightcone eval {name}` measures it")
    else:
        print("stopped after the given time; run the same command again to continue")
    return 0
