"""The arguments of `lightcone collect`, `train` and `eval`. Owns flags, defaults and help; loads no torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from distill.recipes.names import GENERIC_RECIPES, RECIPES, STAGE_ALIASES, STAGES, STUDENT_STAGES


def add_collect_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source of the recording and its size."""
    parser.add_argument("world", nargs="?", help=f"a world with a recipe ({', '.join(RECIPES)})")
    _add_source_arguments(parser)
    parser.add_argument(
        "--streams", type=int, help="number of training streams to record; the held-out ones come on top"
    )
    parser.add_argument("--frames", type=int, help="frames per stream")
    parser.add_argument(
        "--height",
        type=int,
        default=64,
        help="frame height for --env and --videos (default: 64); videos are cut to the shape, environments stretched",
    )
    parser.add_argument("--width", type=int, default=64, help="frame width for --env and --videos (default: 64)")
    parser.add_argument("--fps", type=float, help="frames per second of --videos (default: from their timestamps)")
    parser.add_argument(
        "--min-frames", type=int, help="leave out pieces of --videos with fewer frames than this (default: 64)"
    )


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the world, its recipe, and which part of the training to run."""
    parser.add_argument("world", nargs="?", help=f"a world with a recipe ({', '.join(RECIPES)}) or with recorded data")
    _add_source_arguments(parser)
    parser.add_argument(
        "--preset",
        choices=sorted(GENERIC_RECIPES),
        help="recipe for worlds without one of their own: quick takes under an hour on two CPU cores; smoke trains "
        "every stage for three steps, to see that all runs, and its world shows noise (default: the one that the "
        "world was begun with, else quick)",
    )
    parser.add_argument(
        "--stage",
        choices=STAGES,
        type=lambda name: STAGE_ALIASES.get(name, name),
        help="run only this stage (default: all unfinished ones)",
    )
    parser.add_argument(
        "--redo",
        action="store_true",
        help="make stages that are out of date again; with --stage: that stage, from the beginning",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="with --stage: train for this many steps instead of the recipe's; later calls keep to it until the stage "
        "is named without --steps",
    )
    parser.add_argument("--minutes", type=float, help="stop each stage after so many minutes; run again to continue")
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="CHECKPOINT",
        help="start from the codec and student of this world instead of from random weights",
    )
    parser.add_argument(
        "--shipped-stage",
        choices=STUDENT_STAGES,
        help="put the student of this stage into the checkpoint (default: the recipe's choice; if it is not trained "
        "yet, the latest before it)",
    )
    _add_threads(parser)
    parser.add_argument("--out", type=Path, help="checkpoint folder (default: checkpoints/NAME)")


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the world, what is measured, and the form of the report."""
    parser.add_argument("world", help="a world's name (see `lightcone worlds`) or its folder")
    parser.add_argument("--env", help="environment of a world without a recipe of its own (default: from its card)")
    parser.add_argument("--starts", type=int, default=256, help="number of held-out starts (default: 256)")
    parser.add_argument("--no-drift", action="store_true", help="skip the rollouts of 3,000 frames")
    parser.add_argument("--stages", action="store_true", help="also compare the teacher and the student of every stage")
    parser.add_argument("--teacher-starts", type=int, default=64, help="held-out starts for --stages (default: 64)")
    parser.add_argument("--steps", type=int, help="denoising steps of the student (default: the world's own)")
    _add_threads(parser)
    parser.add_argument("--card", action="store_true", help="write report.json, strips and README.md to the checkpoint")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch (default: one per core)")


def _add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `collect` and `train` may use instead of a world with a recipe."""
    parser.add_argument("--env", help="instead: any Gymnasium id, such as CarRacing-v3, or bouncer")
    parser.add_argument("--videos", type=Path, help="instead: a folder of videos (clip.mp4 with clip.actions.jsonl)")
    parser.add_argument("--name", help="name of the world (default: from the environment or folder, in lower case)")
