"""One video as streams of frames with actions, and what became of it. Knows no folder and no split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.data.clips import DatasetError, Episode
from distill.data.environments.base import EnvironmentSpec, Frame
from distill.data.environments.sidecar import SidecarActions, sidecar_path
from distill.data.environments.video_clock import Picture, Resampling, resampled, unbroken
from distill.data.environments.video_file import UnreadableVideoError, VideoFile, pictures
from distill.data.environments.video_folder import file_rate

MAX_SAID = 3


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
