"""Which worlds there are. Owns the search for checkpoint folders by name; knows nothing of what is in them.

A world is a folder with a `world.json`. Names are looked up in `checkpoints/` of the current folder, where training
writes, in the folders of the environment variable LIGHTCONE_WORLDS (separated as in PATH), and in the repository's
`checkpoints/`; a folder elsewhere can always be given by its path.
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
    """The folders that are searched, in this order, each once."""
    named = [part for part in os.environ.get("LIGHTCONE_WORLDS", "").split(os.pathsep) if part]
    return list(dict.fromkeys(Path(root).resolve() for root in ["checkpoints", *named, str(SHIPPED)]))


def worlds() -> dict[str, Path]:
    """Every world by name; of two with one name the first root's wins."""
    found: dict[str, Path] = {}
    for root in roots():
        for card in sorted(root.glob(f"*/{CARD}")):
            found.setdefault(card.parent.name, card.parent)
    return found


def find(name_or_path: str) -> Path:
    """The folder of a world given by name or by path. Raises CheckpointError, saying which there are."""
    known = worlds()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    if (path / CARD).is_file():
        return path
    if path.is_dir():
        raise CheckpointError(f"{name_or_path} is a folder without a {CARD}; give the folder that holds one")
    there = f"there are {', '.join(sorted(known))}" if known else "there is none yet"
    raise CheckpointError(
        f"no world {name_or_path!r} in {', '.join(map(str, roots()))} ({there}); "
        "give a world's name or folder, or make one with `lightcone train`"
    )


def read_card(folder: Path) -> WorldCard:
    """What a world says of itself, without loading its weights. Raises CheckpointError."""
    try:
        return WorldCard.from_json(json.loads((folder / CARD).read_text(encoding="utf-8"))["card"])
    except (json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(
            f"{folder / CARD} is not a world's description: {error!r}; write the world again"
        ) from error
