"""What a world's name stands for: one source of data, one recipe, one checkpoint folder. Owns the checks that keep
worlds apart, and `run.json` beside a run's stages; trains nothing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from distill.data.clips import Dataset
from distill.recipes.fingerprint import FILE as RECORD
from distill.recipes.folders import world_run
from distill.recipes.names import GENERIC_RECIPES, RECIPES
from world.catalogue import CARD, read_card
from world.errors import LightconeError

FILE = "run.json"
OWN_FILES = {CARD, "README.md", "report.json", "starts.npz", "strips.png", "clip.webp"}
"""What a checkpoint folder holds besides weights."""


class IdentityError(LightconeError):
    """A name, run or folder belongs to another world."""


def slug(name: str) -> str:
    """Return the name of a world made from an environment's id or a folder's name."""
    return re.sub(r"[^\w.:-]+", "-", name.split("/")[-1].lower()).strip("-.:")


def plain_name(name: str) -> str:
    """Return a name that is also that of a folder inside another. Raises IdentityError for any other."""
    if not re.fullmatch(r"\w[\w.:-]*", name):
        raise IdentityError(
            f"{name!r} cannot be the name of a world, which is also that of a folder: give --name with letters, "
            "digits, dots and hyphens"
        )
    return name


def new_name(name: str | None, source: str) -> str:
    """Return the name of a world without a recipe of its own: the given one, or one made from its source. Raises
    IdentityError for one that is no plain name, or that a world has which comes with Lightcone."""
    chosen = plain_name(slug(source) if name is None else name)
    if chosen.lower() in RECIPES:
        raise IdentityError(
            f"{chosen!r} is a world that comes with Lightcone (`lightcone train {chosen.lower()}`): give this one "
            "another --name"
        )
    return chosen


def is_of_videos(folder: Path) -> bool:
    """Return whether the data of a run were imported from videos."""
    data = folder / "data"
    return (data / "dataset.json").exists() and "videos" in Dataset.open(data).collected


def check_source(folder: Path, name: str, *, environment: str | None, videos: Path | None) -> None:
    """Raise IdentityError if the run in a folder was recorded from another source."""
    data = folder / "data"
    if not (data / "dataset.json").exists():
        return
    collected = Dataset.open(data).collected
    before = "videos" if "videos" in collected else f"the environment {collected.get('environment')}"
    now = "videos" if videos is not None else f"the environment {environment}"
    if before != now and (videos is not None or environment is not None):
        raise IdentityError(f"{name} was begun with {before}, not {now}: give another --name, or delete {folder}")


def recipe_name(world: str, asked: str | None) -> str:
    """Return the name of a world's recipe: its own, the one asked for, the one that its run was begun with, or the
    default."""
    return world if world in RECIPES else asked or recorded_recipe(world_run(world)) or GENERIC_RECIPES[0]


def recorded_recipe(folder: Path) -> str | None:
    """Return the recipe that a run was begun with; None if it was not begun, or before this was recorded."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["recipe"])
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityError(f"{path} is damaged ({error}): delete it to go on with the recipe that you name") from error


def begin_run(folder: Path, name: str, recipe: str) -> None:
    """Record the recipe of a run that has no stage yet. Raises IdentityError if its stages are of another recipe; those
    of earlier releases do not tell."""
    if not any(folder.glob(f"*/{RECORD}")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps({"recipe": recipe}) + "\n", encoding="utf-8")
    elif (before := recorded_recipe(folder)) not in (None, recipe):
        raise IdentityError(
            f"{name} was begun with the recipe {before}, not {recipe}: give --preset {before} to go on, another --name "
            f"for a new world, or delete {folder}"
        )


def check_target(target: Path, name: str, environment: str, *, videos: bool) -> None:
    """Raise IdentityError if a checkpoint folder holds another world, or something else."""
    if not target.exists():
        return
    if not target.is_dir():
        raise IdentityError(f"{target} is a file: give another --out, which is the folder of the checkpoint")
    if not (target / CARD).exists():
        strangers = [path.name for path in target.iterdir() if not _is_own(path)]
        if strangers:
            raise IdentityError(
                f"{target} holds {strangers[0]} and no world: give another --out, or a folder that is empty"
            )
        return
    card = read_card(target)
    before = "videos" if "videos" in card.provenance else card.provenance.get("environment")
    if card.name != name or before not in (None, "videos" if videos else environment):
        made_by = card.provenance.get("command", "another run")
        raise IdentityError(
            f"{target} holds another world, {card.name!r} (made by {made_by}): give another --name or --out"
        )


def _is_own(path: Path) -> bool:
    return path.name in OWN_FILES or path.suffix == ".safetensors"
