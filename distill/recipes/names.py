"""The names that the command line offers: stages, worlds with a recipe, and recipes for any environment.

Owns the names only, and imports nothing, so that `lightcone train --help` needs no PyTorch. What they stand for is in
`stages` and `catalogue`.
"""

from __future__ import annotations

STAGES = (
    "collect",
    "codec",
    "decoder",
    "latents",
    "state_estimator",
    "warm_up",
    "teacher",
    "teacher_forced",
    "few_step",
    "distilled",
    "decoder_finetuning",
    "export",
)
"""In the order in which they run."""

STUDENT_STAGES = ("warm_up", "teacher_forced", "few_step", "distilled")
"""The stages that produce a causal student, in order. The last two produce a few-step student."""

STAGE_ALIASES = {"tracker": "state_estimator", "finish": "decoder_finetuning"}
"""Former name of a stage, and of its folder → its name."""

RECIPES = ("pong", "doom")
"""Worlds that have a recipe."""

GENERIC_RECIPES = ("quick", "smoke")
"""Recipes for any environment."""
