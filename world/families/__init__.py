"""Transformer families: how checkpoints are read and written. `FAMILIES` names all that `world.json` may use."""

from world.families.family import Family

FAMILIES: dict[str, Family] = {"lightcone": Family()}
"""Name in `world.json` → family. A new family is its own module, one entry here and, if it needs a part the transformer
does not have yet, an option of `TransformerConfig`."""

DEFAULT = "lightcone"
"""The family of a `world.json` that names none."""
