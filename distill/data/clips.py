"""Recorded play on disk. Owns the file format between collecting and training; knows no environment and no model.

A dataset is a folder. `dataset.json` holds the environment's spec and how the data was collected. `train/` and
`heldout/` hold one `episode_00000.npz` per recorded stream: frames uint8 `t h w 3`, buttons bool `t n`, axes float32
`t m`, rewards float32 `t`, dones bool `t`, oracle float32 `t k`. The action at index t led to frame t.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from distill.data.environments.base import EnvironmentSpec
from world.actions import Actions
from world.card import Axis, Button
from world.codecs.state_channels import state_variables_from_json
from world.errors import LightconeError, why_unreadable
from world.format_1 import fields_from_disk, fields_to_disk

SPLITS = ("train", "heldout")


class DatasetError(LightconeError):
    """A dataset folder is missing, empty or malformed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """One recorded stream of `t` frames; shapes as in the module docstring."""

    frames: NDArray[np.uint8]
    buttons: NDArray[np.bool_]
    axes: NDArray[np.float32]
    rewards: NDArray[np.float32]
    dones: NDArray[np.bool_]
    oracle: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.frames)

    def actions(self) -> Actions:
        """Return the actions as one row, `1 t`."""
        return Actions(torch.from_numpy(self.buttons)[None], torch.from_numpy(self.axes)[None])


def save_episode(path: Path, episode: Episode) -> None:
    """Write one episode atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **{name: getattr(episode, name) for name in Episode.__slots__})
    partial.replace(path)


def load_episode(path: Path) -> Episode:
    """Load an episode that `save_episode` wrote. Raises DatasetError if the file is damaged."""
    with _arrays(path) as arrays:
        return Episode(**{name: arrays[name] for name in Episode.__slots__})


@contextmanager
def _arrays(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Open the arrays of an episode file."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            yield arrays
    except (BadZipFile, EOFError, KeyError, ValueError, zlib.error) as exc:
        reason = why_unreadable(exc)
        raise DatasetError(f"{path} is damaged ({reason}): delete it and run `lightcone collect` again") from exc


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset folder opened for reading. collected: the configuration it was recorded or imported with."""

    root: Path
    spec: EnvironmentSpec
    collected: dict[str, Any]

    @staticmethod
    def open(root: Path) -> Dataset:
        """Open the dataset at `root`. Raises DatasetError if there is none, or if it is damaged."""
        try:
            text = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
            return Dataset(root, spec_from_json(text["environment"]), text["collected"])
        except FileNotFoundError as exc:
            raise DatasetError(f"no dataset at {root}: run `lightcone collect` first") from exc
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise DatasetError(
                f"{root / 'dataset.json'} is damaged ({exc}): delete {root} and run `lightcone collect` again"
            ) from exc

    def paths(self, split: str) -> list[Path]:
        """Return the episode files of `train` or `heldout` in order. Raises DatasetError if there are none."""
        if split not in SPLITS:
            raise DatasetError(f"split {split!r}: choose one of {', '.join(SPLITS)}")
        found = sorted(p for p in (self.root / split).glob("episode_*.npz") if ".partial" not in p.name)
        if not found:
            raise DatasetError(f"{self.root / split} holds no episodes: run `lightcone collect` again")
        return found

    def episodes(self, split: str, limit: int | None = None) -> Iterator[Episode]:
        """Yield the episodes of a split in order, at most `limit`."""
        for path in self.paths(split)[:limit]:
            yield load_episode(path)


def load_dones(path: Path) -> NDArray[np.bool_]:
    """Load only an episode's `dones`, without unpacking its frames. Raises DatasetError if the file is damaged."""
    with _arrays(path) as arrays:
        dones: NDArray[np.bool_] = arrays["dones"]
        return dones


def unbroken(dones: NDArray[np.bool_], *, continuing: bool) -> list[tuple[int, int]]:
    """Return the stretches (start, stop) of a stream from which clips may be cut.

    They lie between the ends of episodes; a `continuing` stream is one stretch.
    """
    ends = [] if continuing else [int(i) + 1 for i in np.flatnonzero(dones) if i + 1 < len(dones)]
    return list(pairwise([0, *ends, len(dones)]))


def clip_starts(dones: NDArray[np.bool_], num_frames: int, *, continuing: bool) -> NDArray[np.int64]:
    """Return the indices at which clips of `num_frames` frames may start; never frame 0, which no action led to."""
    parts = [
        np.arange(max(start, 1), stop - num_frames + 1, dtype=np.int64)
        for start, stop in unbroken(dones, continuing=continuing)
    ]
    return np.concatenate(parts)


def require_clips(dataset: Dataset, num_frames: int) -> None:
    """Raise DatasetError unless a clip of `num_frames` frames can be cut from some training stream."""
    longest = 0
    for path in dataset.paths("train"):
        stretches = unbroken(load_dones(path), continuing=dataset.spec.continuing)
        longest = max(longest, *(stop - max(start, 1) for start, stop in stretches))
        if longest >= num_frames:
            return
    raise DatasetError(
        f"{dataset.root}: the longest stretch of the training streams without the end of an episode has {longest} "
        f"frames that an action led to, and training needs {num_frames}: record longer streams or episodes under "
        "another name, or delete this folder and record again"
    )


def write_dataset_json(root: Path, spec: EnvironmentSpec, collected: dict[str, Any]) -> None:
    """Write `dataset.json`, which completes a dataset."""
    root.mkdir(parents=True, exist_ok=True)
    content = {"environment": fields_to_disk(asdict(spec)), "collected": collected}
    partial = root / "dataset.json.partial"
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(root / "dataset.json")


def spec_from_json(fields: dict[str, Any]) -> EnvironmentSpec:
    """Rebuild the spec that `write_dataset_json` wrote."""
    fields = fields_from_disk(fields)
    buttons = tuple(Button(**{**b, "keys": tuple(b["keys"])}) for b in fields["buttons"])
    axes = tuple(Axis(**a) for a in fields["axes"])
    oracle_names = tuple(fields["oracle_names"])
    state_variables = state_variables_from_json(fields.get("state_variables", ()))
    groups = tuple(tuple(group) for group in fields.get("button_groups", ()))
    known = {
        "button_groups": groups,
        "buttons": buttons,
        "axes": axes,
        "oracle_names": oracle_names,
        "state_variables": state_variables,
    }
    return EnvironmentSpec(**{**fields, **known})
