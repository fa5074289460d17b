"""`lightcone train`: run the stages of a world. Owns the arguments; the stages are in `pipeline`."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from distill.recipes.catalogue import GENERIC_PRESETS, PRESETS
from distill.recipes.choice import choose
from distill.recipes.folders import world_run
from distill.recipes.preset import STAGES, Preset
from distill.recipes.run import Run
from distill.recipes.warm_start import warm_start
from world.errors import LightconeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "world", nargs="?", help=f"a world with a preset of its own ({', '.join(PRESETS)}) or collected data"
    )
    parser.add_argument("--env", help="instead: any Gymnasium id, such as CarRacing-v3, or bouncer")
    parser.add_argument("--videos", type=Path, help="instead: a folder of videos (clip.mp4 with clip.actions.jsonl)")
    parser.add_argument(
        "--preset", choices=sorted(GENERIC_PRESETS), default="quick", help="recipe of worlds without one of their own"
    )
    parser.add_argument(
        "--name", help="name of the world made (default: the environment's or the folder's, lower case)"
    )
    parser.add_argument("--stage", choices=STAGES, help="run this stage only (default: all that are not finished)")
    parser.add_argument("--steps", type=int, help="with --stage: train to this many steps instead of the preset's")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes a stage; run again to go on")
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="CHECKPOINT",
        help="go on from this world's codec and student instead of from nothing",
    )
    parser.add_argument("--out", type=Path, help="checkpoint folder (default: checkpoints/NAME)")


def run(args: argparse.Namespace) -> int:
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
        print("stopped in time; run the same command again to go on")
    return 0


def with_steps(preset: Preset, stage: str | None, steps: int) -> Preset:
    """The preset with another length of one stage. Raises LightconeError unless the stage trains."""
    key = f"{stage}_trainer"
    if stage is None or getattr(preset, key, None) is None:
        raise LightconeError(f"--steps needs a --stage that trains; {stage or 'none'} does not")
    return replace(preset, **{key: replace(getattr(preset, key), num_steps=steps)})
