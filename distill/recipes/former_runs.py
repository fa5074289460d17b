"""Runs from before stages kept records. Owns the names that recipes had then; changes nothing on disk."""

from __future__ import annotations

import json
from pathlib import Path

from distill.recipes.fingerprint import Settings, flattened
from world.errors import LightconeError

FORMER_RECORD = "preset.json"
"""The recipe that was written beside each trained stage."""

FORMER_NAMES = {
    "tracker": "state_estimator",
    "tracker_trainer": "state_estimator_trainer",
    "finish": "decoder_finetuning",
    "finish_trainer": "decoder_finetuning_trainer",
    "context": "corruption",
}
"""Former name of a setting → its name."""


def former_settings(folder: Path, settings: Settings) -> dict[str, object]:
    """Return those of `settings` that the former record in a stage's folder has too, with its values.

    Raises LightconeError if it is damaged.
    """
    path = folder / FORMER_RECORD
    if not path.exists():
        return {}
    try:
        flat = flattened(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise LightconeError(f"{path} is damaged ({error}): delete it to use the product as it is") from error
    found = {".".join(FORMER_NAMES.get(part, part) for part in key.split(".")): value for key, value in flat.items()}
    return {key: found[key] for key in settings if key in found}
