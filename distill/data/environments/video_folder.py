"""A folder of videos before it is imported: which files can be used, and what is wrong with the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from distill.data.clips import DatasetError
from distill.data.environments.sidecar import SidecarActions, read_sidecars
from distill.data.environments.video_clock import playable_rate, typical_rate
from distill.data.environments.video_file import UnreadableVideoError, VideoFile, look_at

logger = logging.getLogger(__name__)

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
SIDECAR_SUFFIX = ".actions.jsonl"


@dataclass(frozen=True, slots=True)
class VideoFolder:
    """The videos of a folder that can be opened, with their actions, and why the others cannot: name → reason."""

    files: list[VideoFile]
    actions: list[SidecarActions]
    left_out: dict[str, str]


def find_videos(folder: Path) -> list[Path]:
    """Return the videos in `folder` by name, without hidden files. Raises DatasetError if there are fewer than two."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: give the folder that holds the videos")
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in visible if path.suffix.lower() in SUFFIXES]
    if len(found) < 2:
        others = [path.name for path in visible if path not in found and not path.name.endswith(SIDECAR_SUFFIX)]
        beside = f", beside {', '.join(others[:5])}{'…' * (len(others) > 5)}" if others else ""
        raise DatasetError(
            f"{folder} holds {len(found)} videos ({', '.join(SUFFIXES)}){beside}: add files until there are at least "
            "2, since whole files are held out from training"
        )
    return found


def look_through(paths: Sequence[Path], *, quiet: bool = False) -> VideoFolder:
    """Look at every video and read its sidecar. Raises DatasetError for sidecars, or if fewer than two can be used."""
    files: list[VideoFile] = []
    left_out: dict[str, str] = {}
    for path in tqdm(paths, desc="looking through", unit="video", disable=quiet):
        try:
            files.append(look_at(path))
        except UnreadableVideoError as exc:
            left_out[path.name] = str(exc)
    require_two(len(files), left_out)
    names = {path.stem for path in paths}
    for orphan in sorted(paths[0].parent.glob(f"*{SIDECAR_SUFFIX}")):
        if orphan.name.removesuffix(SIDECAR_SUFFIX) not in names and not orphan.name.startswith("."):
            logger.warning("%s belongs to no video: name it like one of them", orphan)
    return VideoFolder(files, read_sidecars([file.path for file in files]), left_out)


def require_two(num_usable: int, left_out: Mapping[str, str]) -> None:
    """Raise DatasetError naming all that cannot be used, if fewer than two videos can."""
    if num_usable < 2:
        raise DatasetError(
            f"{num_usable or 'none'} of {num_usable + len(left_out)} videos can be used, and 2 are needed, since whole "
            "files are held out from training:\n" + "\n".join(f"  {name} {why}" for name, why in left_out.items())
        )


def choose_rate(files: Sequence[VideoFile], fps: float | None) -> float:
    """Return the rate of a data set of these videos, and log it. fps: given by the user, else by the timestamps."""
    rates = {file.path.name: file_rate(file) for file in files}
    timed = [file for file in files if (file.distances > 0).any()]
    stated = [rate for file in files for rate in file.stated]
    typical = typical_rate([file.distances for file in timed], stated) if timed else max(rates.values())
    rate = playable_rate(typical) if fps is None else fps
    recorded = sorted({f"{other:g}" for other in rates.values()}, key=float)
    logger.info(
        "%g frames per second%s; the videos have %s",
        rate,
        " as given" if fps is not None else "" if rate == typical else f" (the highest even part of {typical:g})",
        ", ".join(recorded[:5]) + ("…" if len(recorded) > 5 else ""),
    )
    return rate


def file_rate(file: VideoFile) -> float:
    """Return the pictures per second of one video: by its timestamps, else as it states."""
    return typical_rate([file.distances], file.stated) if (file.distances > 0).any() else file.stated[0]
