"""`lightcone eval`: measure a checkpoint on held-out play and write its card. Owns the printed report."""

from __future__ import annotations

import argparse
import json
import sys

from distill.cli.numbers import require_at_least
from distill.cli.threads import set_threads
from distill.evaluation.card import load_teacher, write_card
from distill.evaluation.evaluate import EvaluationConfig, compare_stages, evaluate
from distill.evaluation.long_rollouts import DriftConfig
from distill.evaluation.tables import report_text
from distill.recipes.choice import recipe_of
from distill.recipes.folders import require_writable, world_run
from distill.recipes.run import Run
from world.catalogue import find
from world.checkpoint import World


def run(args: argparse.Namespace) -> int:
    """Measure the world, print the report, and write the card if asked to."""
    require_at_least(1, args, "starts", "teacher_starts")
    if args.threads is not None:
        set_threads(args.threads)
    folder = find(args.world)
    world = World.load(folder, num_steps=args.steps)
    name, preset = world.card.name, recipe_of(world.card, args.env)
    require_writable(world_run(name))  # for held-out play
    config = EvaluationConfig(
        num_starts=args.starts, num_teacher_starts=args.teacher_starts, drift=None if args.no_drift else DriftConfig()
    )
    print(f"{name}: measuring on up to {args.starts} held-out starts", file=sys.stderr, flush=True)
    report = evaluate(world, preset, world_run(name), config)
    if args.stages:
        run_state = Run(name, preset, world_run(name), folder, quiet=True)
        teacher = load_teacher(folder)
        report["stages"] = compare_stages(
            world, run_state.student_worlds(world), teacher, preset, world_run(name), config
        )
    if args.card:
        write_card(folder, world, report, preset, world_run(name))
    print(json.dumps(report, indent=1) if args.json else report_text(report))
    return 0
