"""Uploaded pictures and clips to frames. Owns what is accepted and how many pixels; knows no sessions or worlds.

`read_clip` runs in the process of `clip_process`, which bounds time and memory too.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.errors import BadImageError, ImageTooLargeError
from world.pictures import cropped, upright

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_CLIP_PIXELS = 4
"""The most pixels of all pictures of a clip together, as a multiple of `max_pixels`."""
MAX_CLIP_PICTURES = 2000

# `read_clip` checks sizes itself. Set once, since `warnings.catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_clip(
    data: bytes, height: int, width: int, *, max_bytes: int, max_pixels: int, max_frames: int = 1
) -> NDArray[np.uint8]:
    """Decode an uploaded PNG, JPEG, WebP or GIF to uint8 `t h w 3`, cropped about its centre to the world's shape.

    A clip gives its last `max_frames` pictures, a still picture just one; a JPEG is one picture, whatever else it
    carries (depth, a gain map). Raises ImageTooLargeError or BadImageError.
    """
    check_bytes(data, max_bytes)
    try:
        return _read(io.BytesIO(data), height, width, max_pixels, max_frames)
    except ImageTooLargeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise ImageTooLargeError(f"the picture has more than {max_pixels} pixels; send a smaller one") from exc
    except MemoryError as exc:
        raise ImageTooLargeError("the picture needs too much memory; send a smaller or simpler one") from exc
    except Exception as exc:  # Pillow's decoders raise almost anything for damaged files
        raise BadImageError(
            f"{len(data)} bytes are not a readable picture ({type(exc).__name__}); send a PNG, JPEG, WebP or GIF"
        ) from exc


def check_bytes(data: bytes, max_bytes: int) -> None:
    """Raise ImageTooLargeError for a file of more than `max_bytes` bytes."""
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"the picture has {len(data)} bytes, the limit is {max_bytes}; send a smaller one")


def _read(file: io.BytesIO, height: int, width: int, max_pixels: int, max_frames: int) -> NDArray[np.uint8]:
    image = Image.open(file, formats=FORMATS)
    _check_size(image, 1, max_pixels)
    number = 1 if image.format in ("JPEG", "MPO") else getattr(image, "n_frames", 1)
    _check_size(image, number, max_pixels)
    image.draft("RGB", (2 * max(height, width),) * 2)  # decode a JPEG no larger than needed
    pictures, pixels = [], 0
    for index in range(number):
        if number > 1:
            image.seek(index)
            pixels += image.width * image.height
            _check_size(image, 1, max_pixels)  # a later picture of a GIF can be larger than the first
            _check_clip(image, number, pixels, max_pixels)
        if index >= number - max_frames:
            pictures.append(cropped(upright(image), height, width, resample=Image.Resampling.LANCZOS))
    return np.stack(pictures)


def _check_size(image: Image.Image, number: int, max_pixels: int) -> None:
    """Raise ImageTooLargeError if a clip of `number` such pictures has too many pixels, in one picture or in all."""
    if image.width * image.height > max_pixels:
        raise ImageTooLargeError(
            f"the picture has {image.width} x {image.height} pixels, the limit is {max_pixels}; send a smaller one"
        )
    _check_clip(image, number, image.width * image.height * number, max_pixels)


def _check_clip(image: Image.Image, number: int, pixels: int, max_pixels: int) -> None:
    if pixels > MAX_CLIP_PIXELS * max_pixels or number > MAX_CLIP_PICTURES:
        raise ImageTooLargeError(
            f"the clip has {number} pictures of up to {image.width} x {image.height} pixels, the limit is "
            f"{MAX_CLIP_PIXELS * max_pixels} pixels in all and {MAX_CLIP_PICTURES} pictures; send fewer or smaller ones"
        )
