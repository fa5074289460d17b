"""What a stage's product was made from, and whether that has changed. Owns `stage.json`; knows no stage and no model.

Beside its product each stage keeps a record: the settings it depends on, the fingerprints of its inputs, and a digest
of the product itself. That digest is the fingerprint of a trained stage, so a product that was not touched is the same
whatever happened around it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from world.errors import LightconeError

Settings = Mapping[str, object]
"""Settings by dotted name, as JSON holds them: {"codec_loss.batch_size": 32, …}."""

FILE = "stage.json"
NEUTRAL = ("num_steps", "save_every", "log_every")
"""Settings of a trainer that a record leaves out: training may always continue to more steps, and the others do not
change the product."""

MAX_SHOWN = 3
"""Changed settings that a message names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One stage's `stage.json`.

    settings, inputs: what the product was made from, inputs as name → fingerprint. steps: training steps when the
    finished product was written; None if it trains nothing or is not finished. asked_steps: by `--steps`; None for the
    recipe's. product: digest of the product's file, as it was when that had the time and size of `stamp` (nanoseconds
    since 1970, bytes).
    """

    settings: Settings
    inputs: Mapping[str, str]
    steps: int | None = None
    asked_steps: int | None = None
    product: str = ""
    stamp: tuple[int, int] = (0, 0)

    @property
    def origin(self) -> str:
        """Return the digest of what the product was made from."""
        return digest({"settings": self.settings, "inputs": self.inputs})

    def seen(self, path: Path) -> Record:
        """Return the record with the product's digest, computed again if the file has changed since."""
        stamp = (path.stat().st_mtime_ns, path.stat().st_size)
        if stamp == self.stamp:
            return self
        with path.open("rb") as file:
            product = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        return replace(self, product=product, stamp=stamp)

    def changes(self, settings: Settings, inputs: Mapping[str, str]) -> list[str]:
        """Return what has changed since, one phrase each; empty for a product that is up to date.

        Settings that the record lacks did not exist when it was written; they are not changes. A record without inputs
        is of a product that was taken over from elsewhere, so no input changes it.
        """
        changed = [
            f"{name} {_shown(value)} → {_shown(settings[name]) if name in settings else 'other settings'}"
            for name, value in self.settings.items()
            if name not in settings or settings[name] != value
        ]
        more = [f"and {len(changed) - MAX_SHOWN} more"] if len(changed) > MAX_SHOWN else []
        phrases = [f"its recipe changed ({', '.join(changed[:MAX_SHOWN] + more)})"] if changed else []
        for name, fingerprint in self.inputs.items():
            if name not in inputs:
                phrases.append(f"it is no longer made from {name}")
            elif inputs[name] != fingerprint:
                phrases.append(f"its input {name} was made again")
        if self.inputs:
            phrases += [f"it is now made from {name}" for name in inputs if name not in self.inputs]
        return phrases


def read_record(folder: Path) -> Record | None:
    """Return the record in a stage's folder, or None where there is none. Raises LightconeError for a damaged one."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        fields = json.loads(path.read_text())
        return Record(**fields | {"stamp": tuple(fields["stamp"])})
    except (ValueError, TypeError, KeyError) as error:
        raise LightconeError(f"{path} is damaged ({error}): delete it to keep the product as it is") from error


def write_record(folder: Path, record: Record) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(asdict(record), indent=1) + "\n")
    partial.replace(folder / FILE)


def digest(content: object) -> str:
    """Return a short digest of JSON content, independent of the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def flattened(config: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested settings by dotted name, in the types of JSON."""
    flat: dict[str, object] = {}
    for name, value in json.loads(json.dumps(config)).items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def selected(flat: Settings, names: tuple[str, ...]) -> dict[str, object]:
    """Return the settings that are named, or lie below a name, without the neutral ones of trainers."""
    return {
        key: value
        for key, value in flat.items()
        if any(key == name or key.startswith(f"{name}.") for name in names) and not _is_neutral(key)
    }


def _is_neutral(key: str) -> bool:
    *above, name = key.split(".")
    return name in NEUTRAL and bool(above) and above[-1].endswith("_trainer")


def _shown(value: object) -> str:
    return str(value) if isinstance(value, (int, float)) else json.dumps(value)
