"""Import a folder of videos as a dataset. Owns the split and what is left out; knows no model.

Actions come from sidecars (see `sidecar`); without sidecars the world has no actions. The held-out split consists of
whole files that are not trained on.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from distill.data.clips import SPLITS, Dataset, DatasetError, save_episode, write_dataset_json
from distill.data.environments.base import EnvironmentSpec
from distill.data.environments.sidecar import SidecarActions, named_buttons
from distill.data.environments.video_clock import MAX_FPS
from distill.data.environments.video_folder import (
    VideoFolder,
    choose_rate,
    find_videos,
    look_through,
    require_two,
)
from distill.data.environments.video_streams import FileReport, SidecarLengthError, read_streams
from world.card import Axis

logger = logging.getLogger(__name__)

PATCH = 16
MIN_FRAMES = 64
MAX_SHOWN = 300


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
