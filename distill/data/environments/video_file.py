"""One video file: what can be seen without decoding it, and its pictures. Owns PyAV; knows no data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

from distill.data.clips import DatasetError
from distill.data.environments.video_clock import Picture
from world.pictures import cropped, opaque, turned

DISPLAY_MATRIX = "DISPLAYMATRIX"
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that read the transparency of WebM files; FFmpeg's own ignore it."""


class UnreadableVideoError(DatasetError):
    """A video cannot be opened, or cannot be decoded any further. The message does not name it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoFile:
    """A video that can be decoded at least at its beginning.

    distances: float64 `n - 1`, in seconds between the timestamps of its n pictures, in order of time; empty without
    timestamps. stated: the rates that the file states.
    """

    path: Path
    distances: NDArray[np.float64]
    stated: tuple[float, ...]


def look_at(path: Path) -> VideoFile:
    """Read the timestamps of a video and decode its first picture. Raises UnreadableVideoError saying what is wrong."""
    if not path.is_file():
        raise UnreadableVideoError("is no file")
    with _opened(path) as container:
        stream = _stream(container)
        rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
        stated = tuple(dict.fromkeys(float(rate) for rate in rates if rate))
        ticks = [packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None]
        times = np.sort(np.array(ticks, np.float64)) * float(stream.time_base or 0)
    distances = np.diff(times)
    if not (distances > 0).any() and not stated:
        raise UnreadableVideoError("has neither timestamps nor a frame rate: convert it to a format that has")
    if next(pictures(path, 16, 16, 1.0), None) is None:
        raise UnreadableVideoError("holds no picture")
    return VideoFile(path=path, distances=distances, stated=stated)


def pictures(path: Path, height: int, width: int, rate: float) -> Iterator[Picture]:
    """Yield the pictures of a video in order: upright, with square pixels, opaque, cut and resized.

    rate: for pictures without a timestamp. Raises UnreadableVideoError where the file cannot be decoded any further.
    """
    with _opened(path) as container:
        stream = _stream(container)
        aspect = float(stream.sample_aspect_ratio or 1)
        for index, frame in enumerate(_decoded(container, stream)):
            time = index / rate if frame.time is None else float(frame.time)
            image, pixel_aspect = turned(_image(frame), _matrix(frame), aspect)
            yield Picture(index, time, cropped(image, height, width, pixel_aspect=pixel_aspect))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a video, and turn FFmpeg's errors into UnreadableVideoError."""
    try:
        with av.open(str(path)) as container:
            yield container
    except av.error.FFmpegError as exc:
        raise UnreadableVideoError(f"cannot be decoded: {exc.strerror}") from exc


def _stream(container: Any) -> Any:
    """Return the first video stream that is not a cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise UnreadableVideoError("has a video stream that this FFmpeg cannot decode: convert it to H.264")
            return stream
    raise UnreadableVideoError("holds no video stream")


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    name = ALPHA_DECODERS.get(stream.codec_context.name)
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    if name is None or tags.get("alpha_mode") != "1" or name not in av.codecs_available:
        yield from container.decode(stream)
        return
    decoder: Any = av.CodecContext.create(name, "r")
    for packet in container.demux(stream):
        yield from decoder.decode(packet)


def _image(frame: Any) -> Image.Image:
    see_through = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
    return opaque(Image.fromarray(frame.to_ndarray(format="rgba" if see_through else "rgb24")))


def _matrix(frame: Any) -> tuple[float, float, float, float]:
    """Return a, b, c, d of the frame's display matrix (see `world.pictures.turned`)."""
    data = frame.side_data.get(DISPLAY_MATRIX)
    if data is None:
        return 1.0, 0.0, 0.0, 1.0
    a, b, _, c, d, *_ = np.frombuffer(data, np.int32).tolist()
    return a, b, c, d
