"""Recipes by name. The names alone, without PyTorch, are in `names`."""

from __future__ import annotations

from distill.recipes.doom import doom
from distill.recipes.generic import quick, smoke
from distill.recipes.pong import pong

PRESETS = {"pong": pong, "doom": doom}
GENERIC_PRESETS = {"quick": quick, "smoke": smoke}
