"""Which recipe a user means. Owns the way from a world's name, an environment or a folder of videos to a preset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distill.data.clips import Dataset
from distill.recipes.catalogue import GENERIC_PRESETS, PRESETS
from distill.recipes.folders import world_run
from distill.recipes.preset import Preset
from world.card import WorldCard
from world.errors import LightconeError


def choose(
    world: str | None,
    env: str | None,
    preset: str,
    name: str | None = None,
    *,
    videos: Path | None = None,
) -> tuple[str, Preset]:
    """(name, preset) of the world asked for: one with a preset of its own or whose data is already there, an
    environment, or a folder of videos. Raises LightconeError naming the choices."""
    if sum(given is not None for given in (world, env, videos)) != 1:
        raise LightconeError(
            "name one of: a world (such as `lightcone train pong`), an environment (--env ID), a folder (--videos DIR)"
        )
    if env is not None:
        return name or slug(env), GENERIC_PRESETS[preset](env)
    if videos is not None:
        source = slug(videos.resolve().name)
        return name or source, GENERIC_PRESETS[preset](source)
    assert world is not None
    if world in PRESETS:
        return world, PRESETS[world]()
    data = world_run(world) / "data"
    if (data / "dataset.json").exists():
        dataset = Dataset.open(data)
        return world, GENERIC_PRESETS[preset](dataset.collected.get("environment", dataset.spec.name))
    raise LightconeError(
        f"no preset for {world!r} and nothing recorded at {data}: choose "
        f"{', '.join(PRESETS)}, or give --env or --videos"
    )


def recipe_of(card: WorldCard, env: str | None = None) -> Preset:
    """The preset a finished world is evaluated with: its own, or its environment's at its frame size."""
    if card.name in PRESETS and env is None:
        return PRESETS[card.name]()
    preset = GENERIC_PRESETS["quick"](env or card.provenance.get("environment", card.name))
    return replace(preset, collect=replace(preset.collect, height=card.height, width=card.width))


def slug(name: str) -> str:
    """A world's name from an environment's id or a folder's name."""
    return name.split("/")[-1].lower().replace(" ", "-")
