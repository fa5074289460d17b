"""Choose the preset a user means by a world's name, an environment, or a folder of videos. Trains nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distill.data.clips import Dataset
from distill.recipes.catalogue import GENERIC_PRESETS, PRESETS
from distill.recipes.folders import world_run
from distill.recipes.identity import check_source, new_name, plain_name, recipe_name, slug
from distill.recipes.preset import Preset
from world.card import WorldCard
from world.errors import LightconeError


def choose(
    world: str | None,
    env: str | None,
    preset: str | None,
    name: str | None = None,
    *,
    videos: Path | None = None,
) -> tuple[str, Preset]:
    """Return the name and preset of a world: one with its own preset, one whose data are recorded, one from an
    environment, or one from a folder of videos. preset: the recipe's name; None for that of the run so far. Raises
    LightconeError naming the choices."""
    if sum(source is not None for source in (world, env, videos)) != 1:
        raise LightconeError(
            "name one of: a world (`lightcone train pong`), an environment (--env ID), or a folder (--videos DIR)"
        )
    if env is not None or videos is not None:
        source = env if env is not None else slug(videos.resolve().name) or "videos"  # type: ignore[union-attr]  # one is given
        chosen = new_name(name, source)
        check_source(world_run(chosen), chosen, environment=env, videos=videos)
        return chosen, GENERIC_PRESETS[recipe_name(chosen, preset)](source)
    assert world is not None
    if name is not None:
        raise LightconeError(f"--name {name}: leave it out, or give --env or --videos; {world!r} is a name already")
    if world in PRESETS:
        return world, PRESETS[world]()
    data = world_run(plain_name(world)) / "data"
    if (data / "dataset.json").exists():
        dataset = Dataset.open(data)
        source = dataset.collected.get("environment", dataset.spec.name)
        return world, GENERIC_PRESETS[recipe_name(world, preset)](source)
    raise LightconeError(
        f"no preset for {world!r}, and no recorded data at {data}: "
        f"choose {', '.join(PRESETS)}, or give --env or --videos"
    )


def recipe_of(card: WorldCard, env: str | None = None) -> Preset:
    """Return the preset that a finished world is evaluated with: its own, or its environment's at its frame size."""
    if card.name in PRESETS and env is None:
        return PRESETS[card.name]()
    preset = GENERIC_PRESETS["quick"](env or card.provenance.get("environment", card.name))
    return replace(preset, collect=replace(preset.collect, height=card.height, width=card.width))
