"""Import a folder of videos as a dataset. Owns streams, splits and what is reported; knows no model.

Actions come from sidecars (see `sidecar`); without sidecars the world has no actions. The held-out split consists of
whole files that are not trained on.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from distill.data.clips import SPLITS, Dataset, DatasetError, Episode, save_episode, write_dataset_json
from distill.data.environments.base import EnvironmentSpec, Frame
from distill.data.environments.sidecar import SidecarActions, named_buttons, sidecar_path
from distill.data.environments.video_clock import MAX_FPS, Picture, Resampling, resampled, unbroken
from distill.data.environments.video_file import UnreadableVideoError, VideoFile, pictures
from distill.data.environments.video_folder import (
    VideoFolder,
    choose_rate,
    file_rate,
    find_videos,
    look_through,
    require_two,
)
from world.card import Axis

logger = logging.getLogger(__name__)

PATCH = 16
MIN_FRAMES = 64
MAX_SAID, MAX_SHOWN = 3, 300


class SidecarLengthError(DatasetError):
    """A sidecar does not have one line for each picture of its video."""


@dataclass(slots=True)
class FileReport:
    """What became of one video: its streams, its pictures, frames in pieces that were too short, and where it broke."""

    streams: list[Path] = field(default_factory=list)
    pictures: Resampling = field(default_factory=Resampling)
    num_short: int = 0
    longest: int = 0
    broken: str | None = None

    def __str__(self) -> str:
        """Return what is worth saying, or an empty string."""
        found = self.pictures
        parts = []
        if self.broken:
            parts.append(f"{self.broken} after {found.num_pictures} pictures, which are kept")
        parts += [f"its clock {where}, where a new stream begins" for where in found.breaks[:MAX_SAID]]
        if (more := len(found.breaks) - MAX_SAID) > 0:
            parts.append(f"{more} more such breaks")
        if found.num_left_out:
            parts.append(f"{found.num_left_out} of {found.num_pictures} pictures fall between two frames")
        if found.num_repeated:
            parts.append(f"{found.num_repeated} frames repeat the picture before")
        if self.num_short and self.streams:
            parts.append(f"{self.num_short} frames in short pieces are dropped")
        return "; ".join(parts)


def import_videos(
    folder: Path,
    root: Path,
    *,
    height: int = 64,
    width: int = 64,
    fps: float | None = None,
    heldout_share: float = 0.15,
    frames_per_stream: int = 1500,
    min_frames: int | None = None,
    data_license: str = "Frames of the videos it was trained on; see their own licences.",
    quiet: bool = False,
) -> Dataset:
    """Turn the videos in `folder` into a dataset at `root`; do nothing if this import was done before.

    Pictures are turned upright, cropped around their centre to the requested aspect ratio and reduced to
    `height`×`width` by area averaging. fps: frame rate of the dataset (default: the typical rate of the pictures, or an
    even part of it, up to 60). An output frame shows the newest picture at its time; its buttons are all that were
    pressed since the previous output frame, its axes their mean. A video is split into streams where its clock jumps
    or runs backwards, and after `frames_per_stream` frames; pieces shorter than `min_frames` (default 64) are dropped.
    What cannot be used, is left out or repeated is logged. Raises DatasetError.
    """
    if height < 1 or width < 1 or height % PATCH or width % PATCH or not 0 < heldout_share < 1:
        raise DatasetError(
            f"frame size {height}x{width}, held-out share {heldout_share}: sizes must be multiples of {PATCH} "
            "above 0, the share between 0 and 1"
        )
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise DatasetError(f"{fps:g} frames per second: worlds are played at more than 0 and at most {MAX_FPS:g}")
    if min_frames is not None and min_frames < 2:
        raise DatasetError(f"min_frames {min_frames}: a stream has at least 2 frames")
    paths = find_videos(folder)
    requested = {
        "height": height,
        "width": width,
        "frames_per_stream": frames_per_stream,
        "found": [path.name for path in paths],
    }
    if (root / "dataset.json").exists():
        given = {"fps": fps, "min_frames": min_frames}
        return _reopen(root, requested | {name: value for name, value in given.items() if value is not None})
    videos = look_through(paths, quiet=quiet)
    collected = requested | {"fps": choose_rate(videos.files, fps), "min_frames": min_frames or MIN_FRAMES}
    logger.info("pictures are cut about their centre to the shape of %dx%d", width, height)
    spec = _spec(folder, videos.actions, collected, data_license)
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(partial, videos, spec, collected, heldout_share, quiet=quiet)
        partial.replace(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Dataset.open(root)


def _write(
    root: Path, videos: VideoFolder, spec: EnvironmentSpec, collected: dict[str, Any], share: float, *, quiet: bool
) -> None:
    """Write a whole dataset to `root`: streams, then the split among the videos that gave any, then `dataset.json`."""
    streams, left_out = _decode_all(root / "streams", videos, spec, collected, quiet=quiet)
    require_two(len(streams), left_out)
    for name, why in left_out.items():
        logger.warning("left out: %s %s", name, why)
    heldout = _heldout(list(streams), share)
    counts = dict.fromkeys(SPLITS, 0)
    for name, files in streams.items():
        split = "heldout" if name in heldout else "train"
        for file in files:
            target = root / split / f"episode_{counts[split]:05d}.npz"
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
            counts[split] += 1
    (root / "streams").rmdir()
    facts = {"videos": list(streams), "heldout": heldout, "left_out": left_out}
    spec = replace(spec, description=f"Learned from {len(streams)} videos.")
    write_dataset_json(root, spec, collected | facts)
    logger.info("%d streams of %d videos; held out: %s", sum(counts.values()), len(streams), ", ".join(heldout))


def _decode_all(
    root: Path, videos: VideoFolder, spec: EnvironmentSpec, collected: dict[str, Any], *, quiet: bool
) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Write the streams of all videos. Return the files of each video that gave any, and why the others cannot be used.

    Raises DatasetError naming every sidecar whose length is wrong.
    """
    streams: dict[str, list[Path]] = {}
    left_out, wrong = dict(videos.left_out), []
    pairs = list(zip(videos.files, videos.actions, strict=True))
    for number, (file, actions) in enumerate(tqdm(pairs, desc="videos", unit="video", disable=quiet)):
        name, report = file.path.name, FileReport()
        try:
            for episode in read_streams(file, actions, spec, collected["frames_per_stream"], report):
                report.longest = max(report.longest, len(episode))
                if len(episode) < collected["min_frames"]:
                    report.num_short += len(episode)
                    continue
                target = root / f"{number:05d}_{len(report.streams):05d}.npz"
                save_episode(target, episode)
                report.streams.append(target)
        except SidecarLengthError as exc:
            wrong.append(str(exc))
            continue
        if said := str(report):
            logger.info("%s: %s", name, said)
        if report.streams:
            streams[name] = report.streams
        else:
            left_out[name] = (
                f"gives no stream of {collected['min_frames']} frames at {spec.fps:g} frames per second, its longest "
                f"has {report.longest}: choose a smaller --min-frames or longer videos"
            )
    if wrong:
        raise DatasetError("\n".join(wrong))
    return streams, left_out


def read_streams(
    file: VideoFile, actions: SidecarActions, spec: EnvironmentSpec, num_frames: int, report: FileReport
) -> Iterator[Episode]:
    """Yield the video in order, in unbroken pieces of at most `num_frames` frames, at the spec's size and rate.

    Ends where the video cannot be decoded any further, and notes that in `report`. Raises SidecarLengthError.
    """
    names = [button.name for button in spec.buttons]
    decoded = pictures(file.path, spec.height, spec.width, file_rate(file))
    checked = _with_actions(_readable(decoded, report), file.path, len(actions.buttons), report)
    for piece in unbroken(checked, report.pictures):
        frames: list[Frame] = []
        buttons: list[list[bool]] = []
        axes: list[NDArray[np.float32]] = []
        for frame, first, last in resampled(piece, spec.fps, report.pictures):
            span = slice(first, last + 1)
            pressed = frozenset[str]().union(*actions.buttons[span])
            frames.append(frame)
            buttons.append([name in pressed for name in names])
            axes.append(actions.axes[span].mean(0) if spec.axes else np.zeros(0, np.float32))
            if len(frames) == num_frames:
                yield _episode(frames, buttons, axes)
                frames, buttons, axes = [], [], []
        if frames:
            yield _episode(frames, buttons, axes)


def _readable(decoded: Iterator[Picture], report: FileReport) -> Iterator[Picture]:
    """Yield pictures as long as the file can be decoded."""
    try:
        yield from decoded
    except UnreadableVideoError as exc:
        report.broken = str(exc)


def _with_actions(decoded: Iterator[Picture], path: Path, num_actions: int, report: FileReport) -> Iterator[Picture]:
    """Check that there are no actions, or one for each picture. Raises SidecarLengthError."""
    count = 0
    for picture in decoded:
        count = picture.index + 1
        if count > num_actions > 0:
            break
        yield picture
    if num_actions not in (0, count) and not report.broken:
        found = "more" if count > num_actions else str(count)
        raise SidecarLengthError(
            f"{sidecar_path(path)} has {num_actions} lines, the video {found} frames: write one line per frame"
        )


def _episode(frames: list[Frame], buttons: list[list[bool]], axes: list[NDArray[np.float32]]) -> Episode:
    num = len(frames)
    return Episode(
        frames=np.stack(frames),
        buttons=np.array(buttons, np.bool_),
        axes=np.stack(axes),
        rewards=np.zeros(num, np.float32),
        dones=np.zeros(num, np.bool_),
        oracle=np.zeros((num, 0), np.float32),
    )


def _heldout(names: Sequence[str], share: float) -> list[str]:
    count = min(max(1, round(share * len(names))), len(names) - 1)
    chosen = np.random.default_rng(0).permutation(len(names))[:count]
    return sorted(names[i] for i in chosen)


def _reopen(root: Path, asked: dict[str, Any]) -> Dataset:
    """Open a dataset that was imported before. Raises DatasetError where it is not the one that is asked for."""
    dataset = Dataset.open(root)
    there = {"found": dataset.collected.get("videos"), **dataset.collected}
    other = [f"{name} {there.get(name)}, not {value}" for name, value in asked.items() if there.get(name) != value]
    if other:
        raise DatasetError(
            f"{root} holds another dataset ({'; '.join(other)[:MAX_SHOWN]}): choose another name, or delete the folder"
        )
    return dataset


def _spec(
    folder: Path, actions: Sequence[SidecarActions], collected: dict[str, Any], data_license: str
) -> EnvironmentSpec:
    names = sorted({name for sidecar in actions for pressed in sidecar.buttons for name in pressed})
    low = np.min([sidecar.axes.min(0, initial=-1.0) for sidecar in actions], axis=0)
    high = np.max([sidecar.axes.max(0, initial=1.0) for sidecar in actions], axis=0)
    return EnvironmentSpec(
        name=folder.resolve().name.lower().replace(" ", "-"),
        title=folder.resolve().name,
        description="Learned from videos.",
        fps=collected["fps"],
        height=collected["height"],
        width=collected["width"],
        buttons=named_buttons(names),
        axes=tuple(
            Axis(name=f"axis{i}", label=f"Axis {i}", low=float(low[i]), high=float(high[i]), source=f"gamepad_{i}")
            for i in range(len(low))
        ),
        exclusive_buttons=False,
        data_license=data_license,
    )
