"""Import a folder of videos as a dataset. Owns decoding, resampling and resizing; knows no model.

Actions come from sidecars (see `sidecar`); without sidecars the world has no actions. The held-out split consists of
whole files that are not trained on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from distill.data.clips import Dataset, DatasetError, Episode, save_episode, write_dataset_json
from distill.data.environments.base import EnvironmentSpec, Frame
from distill.data.environments.sidecar import SidecarActions, named_buttons, read_sidecars, sidecar_path
from world.card import Axis

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
PATCH = 16


def import_videos(
    folder: Path,
    root: Path,
    *,
    height: int = 64,
    width: int = 64,
    fps: float | None = None,
    heldout_share: float = 0.15,
    frames_per_stream: int = 1500,
    min_frames: int = 64,
    data_license: str = "Frames of the videos it was trained on; see their own licences.",
    quiet: bool = False,
) -> Dataset:
    """Turn the videos in `folder` into a dataset at `root`; do nothing if exactly this import was done before.

    Pictures are cropped around their centre to the requested aspect ratio and reduced to `height`×`width` by area
    averaging. fps: frame rate of the dataset (default: the first video's). An output frame shows the newest picture at
    its time; its buttons are all that were pressed since the previous output frame, its axes their mean. A video is
    split into streams of at most `frames_per_stream` frames; pieces shorter than `min_frames` are dropped. Raises
    DatasetError.
    """
    if height % PATCH or width % PATCH or not 0 < heldout_share < 1:
        raise DatasetError(
            f"frame size {height}x{width}, held-out share {heldout_share}: sizes must be multiples of {PATCH}, "
            "the share between 0 and 1"
        )
    paths = _videos(folder)
    rate = fps or _native_fps(paths[0])
    collected = {
        "videos": [path.name for path in paths],
        "heldout": _heldout(paths, heldout_share),
        "height": height,
        "width": width,
        "fps": rate,
        "frames_per_stream": frames_per_stream,
        "min_frames": min_frames,
    }
    if (root / "dataset.json").exists():
        return _reopen(root, collected)
    actions = read_sidecars(paths)
    spec = _spec(folder, actions, collected, data_license)
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write_streams(partial, paths, actions, spec, collected, quiet=quiet)
    write_dataset_json(partial, spec, collected)
    partial.replace(root)
    return Dataset.open(root)


def _write_streams(
    root: Path,
    paths: Sequence[Path],
    actions: Sequence[SidecarActions],
    spec: EnvironmentSpec,
    collected: dict[str, Any],
    *,
    quiet: bool,
) -> None:
    counts = {"train": 0, "heldout": 0}
    for path, sidecar in tqdm(list(zip(paths, actions, strict=True)), desc="videos", unit="video", disable=quiet):
        split = "heldout" if path.name in collected["heldout"] else "train"
        for episode in read_streams(path, sidecar, spec, collected["frames_per_stream"]):
            if len(episode) >= collected["min_frames"]:
                save_episode(root / split / f"episode_{counts[split]:05d}.npz", episode)
                counts[split] += 1
    for split, count in counts.items():
        if count == 0:
            raise DatasetError(
                f"no {split} video has {collected['min_frames']} frames at {spec.fps:g} frames per second: "
                "add longer videos or choose a smaller `min_frames`"
            )


def read_streams(path: Path, actions: SidecarActions, spec: EnvironmentSpec, num_frames: int) -> Iterator[Episode]:
    """Yield the video in order, in pieces of at most `num_frames` frames, at the spec's size and rate."""
    names = [button.name for button in spec.buttons]
    frames: list[Frame] = []
    buttons: list[list[bool]] = []
    axes: list[NDArray[np.float32]] = []
    decoded = _decoded(path, spec.height, spec.width, len(actions.buttons))
    for picture, first, last in _resampled(decoded, spec.fps):
        span = slice(first, last + 1)
        pressed = frozenset[str]().union(*actions.buttons[span])
        frames.append(picture)
        buttons.append([name in pressed for name in names])
        axes.append(actions.axes[span].mean(0) if spec.axes else np.zeros(0, np.float32))
        if len(frames) == num_frames:
            yield _episode(frames, buttons, axes)
            frames, buttons, axes = [], [], []
    if frames:
        yield _episode(frames, buttons, axes)


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


def _resampled(frames: Iterator[tuple[float, Frame]], fps: float) -> Iterator[tuple[Frame, int, int]]:
    """Yield (picture, first, last): the newest picture at each n / fps, and the source frames since the last output.

    A repeated picture has first = last. Rounded timestamps are tolerated up to a tenth of an output frame.
    """
    slack, count, first, index = 0.1 / fps, 0, 0, -1
    picture, start, now = None, 0.0, 0.0
    for index, (time, newer) in enumerate(frames):
        start = time if picture is None else start
        now = time - start
        while picture is not None and count / fps < now - slack:
            yield picture, min(first, index - 1), index - 1
            count, first = count + 1, index
        picture = newer
    while picture is not None and count / fps <= now + slack:
        yield picture, min(first, index), index
        count, first = count + 1, index + 1


def _decoded(path: Path, height: int, width: int, num_actions: int) -> Iterator[tuple[float, Frame]]:
    """Yield (seconds, picture) of every video frame, cropped and resized.

    Raises DatasetError if there are actions, but not exactly one per frame.
    """
    count = 0
    try:
        with av.open(str(path)) as container:
            rate = _rate(container, path)
            for count, frame in enumerate(container.decode(video=0), 1):
                if count > num_actions > 0:
                    break
                time = (count - 1) / rate if frame.time is None else frame.time
                yield time, _resize(Image.fromarray(frame.to_ndarray(format="rgb24")), height, width)
    except av.error.FFmpegError as exc:
        raise DatasetError(f"{path} cannot be decoded: {exc}") from exc
    if num_actions not in (0, count):
        found = "more" if count > num_actions else str(count)
        raise DatasetError(
            f"{sidecar_path(path)} has {num_actions} lines, the video {found} frames: write one line per frame"
        )


def _resize(picture: Image.Image, height: int, width: int) -> Frame:
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - width * scale) / 2, (picture.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX, box=box))


def _native_fps(path: Path) -> float:
    try:
        with av.open(str(path)) as container:
            return _rate(container, path)
    except av.error.FFmpegError as exc:
        raise DatasetError(f"{path} cannot be decoded: {exc}") from exc


def _rate(container: Any, path: Path) -> float:
    if not container.streams.video:
        raise DatasetError(f"{path} holds no video stream: remove it from the folder")
    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate
    if not rate:
        raise DatasetError(f"{path} does not state its frame rate: convert it to a format that does")
    return float(rate)


def _videos(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if len(found) < 2:
        raise DatasetError(
            f"{folder} holds {len(found)} videos ({', '.join(SUFFIXES)}): add files until there are at least 2, "
            "since whole files are held out from training"
        )
    return found


def _heldout(paths: Sequence[Path], share: float) -> list[str]:
    count = min(max(1, round(share * len(paths))), len(paths) - 1)
    chosen = np.random.default_rng(0).permutation(len(paths))[:count]
    return sorted(paths[i].name for i in chosen)


def _reopen(root: Path, collected: dict[str, Any]) -> Dataset:
    dataset = Dataset.open(root)
    if dataset.collected != collected:
        raise DatasetError(f"{root} holds another dataset: choose another name, or delete the folder")
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
        description=f"Learned from {len(collected['videos'])} videos.",
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
