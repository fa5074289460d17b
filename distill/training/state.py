"""The state of training on disk: one file in a stage's folder. Owns its reading and writing; trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from world.errors import LightconeError
from world.format_1 import weights_from_disk

STATE_FILE = "state.pt"
"""The name of the file in a stage's folder that training resumes from."""


class TrainingStateError(LightconeError):
    """The state that training would continue from, or that is used as a product, is missing or damaged."""


def copied(value: Any) -> Any:
    """Return a copy of a state, or of a part of one, that training does not change."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return [copied(part) for part in value] if isinstance(value, list) else value


def num_bytes(value: Any) -> int:
    """Return the size of the tensors of a state, or of a part of one."""
    if isinstance(value, Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(num_bytes(part) for part in parts)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a state. The file is replaced in one move, so a crash leaves the former one intact."""
    partial = (folder / STATE_FILE).with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(folder / STATE_FILE)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state that `Trainer.save` wrote to a folder, on the CPU, under the present names of modules and
    weights. Raises TrainingStateError where it is missing or damaged."""
    state = _load(folder)
    for part in ("modules", "optimisers"):
        state[part] = _modules_from_disk(state.get(part, {}))
    state["modules"] = {name: weights_from_disk(weights) for name, weights in state["modules"].items()}
    state["ema"] = weights_from_disk(state["ema"])
    return state


def load_product(folder: Path) -> tuple[dict[str, Tensor], int]:
    """Return the averaged weights that a stage has produced so far, and the number of steps they have been trained.
    Raises TrainingStateError where they are missing or damaged."""
    state = read_state(folder)
    return state["ema"], int(state["step"])


def trained_steps(folder: Path) -> int:
    """Return how many steps the state in a folder has been trained, without reading its weights. Raises
    TrainingStateError where it is missing or damaged."""
    return int(_load(folder, mmap=True)["step"])


def _load(folder: Path, *, mmap: bool = False) -> dict[str, Any]:
    path = folder / STATE_FILE
    state: dict[str, Any] = load_file(path, mmap=mmap)
    if missing := [part for part in ("step", "ema") if part not in state]:
        raise TrainingStateError(_damaged(path, f"it has no {missing[0]!r}"))
    return state


def load_file(path: Path, *, mmap: bool = False) -> Any:
    """Return what `torch.save` wrote to a stage's folder, on the CPU. Raises TrainingStateError where the file is
    missing or damaged."""
    if not path.exists():
        raise TrainingStateError(f"{path} is missing: make it with `lightcone train … --stage {path.parent.name}`")
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except Exception as error:  # damaged bytes make the unpickler raise anything
        raise TrainingStateError(_damaged(path, str(error))) from error


def _damaged(path: Path, reason: str) -> str:
    first_line = (reason.strip() or "it cannot be read").splitlines()[0]
    return f"{path} is damaged ({first_line}): put back a copy, or delete {path.parent} and run again to make it anew"


def _modules_from_disk(entries: dict[str, Any]) -> dict[str, Any]:
    """Rename modules as their weights are renamed: a module's name is the prefix of its weights."""
    renamed = weights_from_disk({f"{name}.": value for name, value in entries.items()})
    return {prefix.removesuffix("."): value for prefix, value in renamed.items()}
