"""The available worlds. Owns the search for checkpoint folders by name; does not know their contents.

A world is a folder with a `world.json`. Names are looked up in `checkpoints/` of the current folder, where training
writes, in the folders of the environment variable LIGHTCONE_WORLDS (separated as in PATH), and in the repository's
`checkpoints/`. Any other folder can be given by its path.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from world.card import WorldCard
from world.errors import CheckpointError

CARD = "world.json"
SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"


def roots() -> list[Path]:
    """Return the folders to search, in this order, without duplicates."""
    named = [part for part in os.environ.get("LIGHTCONE_WORLDS", "").split(os.pathsep) if part]
    return list(dict.fromkeys(Path(root).resolve() for root in ["checkpoints", *named, str(SHIPPED)]))


def worlds() -> dict[str, Path]:
    """Return every world by name; if two have the same name, the first root's wins."""
    found: dict[str, Path] = {}
    for root in roots():
        for card in sorted(root.glob(f"*/{CARD}")):
            found.setdefault(card.parent.name, card.parent)
    return found


def find(name_or_path: str) -> Path:
    """Return the folder of a world given by name or path. Raises CheckpointError, listing the known worlds."""
    known = worlds()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    if (path / CARD).is_file():
        return path
    if path.is_dir():
        raise CheckpointError(f"{name_or_path} is a folder without a {CARD}; give the folder that holds one")
    names = f"there are {', '.join(sorted(known))}" if known else "there is none yet"
    raise CheckpointError(
        f"no world {name_or_path!r} in {', '.join(map(str, roots()))} ({names}); "
        "give a world's name or folder, or make one with `lightcone train`"
    )


def read_card(folder: Path) -> WorldCard:
    """Read a world's card without loading its weights. Raises CheckpointError."""
    try:
        return WorldCard.from_json(json.loads((folder / CARD).read_text(encoding="utf-8"))["card"])
    except (json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(
            f"{folder / CARD} is not a world's description: {error!r}; save the world again"
        ) from error
