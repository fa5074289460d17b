"""Pictures to bytes and back. Owns encodings and what uploaded pictures may be; knows no sessions and no worlds."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from server.errors import BadImageError, ImageTooLargeError, UnsupportedError
from server.wire.protocol import Encoding

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_CLIP_PIXELS = 4
"""Times `max_pixels`, of all pictures of a clip together."""

# `read_clip` checks the size itself. Set once: `warnings.catch_warnings` is not safe among threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def choose_encoding(offered: tuple[str, ...]) -> Encoding:
    """The first encoding a client offers that this server has. Raises UnsupportedError."""
    for name in offered:
        if name == "jpeg":
            return "jpeg"
        if name == "png":
            return "png"
    raise UnsupportedError(f"encodings {', '.join(offered)[:100]}: this server has jpeg and png")


def encode_picture(picture: NDArray[np.uint8], encoding: Encoding, jpeg_quality: int) -> bytes:
    """uint8 `h w 3` → bytes. JPEG keeps full colour resolution, since small bright things matter here; PNG is exact."""
    out = io.BytesIO()
    image = Image.fromarray(picture)
    if encoding == "png":
        image.save(out, "PNG", compress_level=1)
    else:
        image.save(out, "JPEG", quality=jpeg_quality, subsampling=0)
    return out.getvalue()


def encode_animation(frames: Sequence[NDArray[np.uint8]], fps: float) -> bytes:
    """uint8 `h w 3` each → an animated WebP that runs for ever, forwards and back."""
    images = [Image.fromarray(frame) for frame in (*frames, *frames[-2:0:-1])]
    out = io.BytesIO()
    images[0].save(
        out, "WEBP", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0, quality=80, method=2
    )
    return out.getvalue()


def read_clip(
    data: bytes, height: int, width: int, *, max_bytes: int, max_pixels: int, max_frames: int = 1
) -> NDArray[np.uint8]:
    """An uploaded PNG, JPEG, WebP or GIF → uint8 `t h w 3`, cropped about its centre to the world's shape: its last
    `max_frames` pictures, of a still picture the one.

    Raises ImageTooLargeError or BadImageError.
    """
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"the picture has {len(data)} bytes, the limit is {max_bytes}; send it smaller")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        pixels, number = image.width * image.height, getattr(image, "n_frames", 1)
        if pixels > max_pixels:
            raise ImageTooLargeError(
                f"the picture has {image.width} x {image.height} pixels, the limit is {max_pixels}; send it smaller"
            )
        if pixels * number > MAX_CLIP_PIXELS * max_pixels:
            raise ImageTooLargeError(
                f"the clip has {number} pictures of {image.width} x {image.height} pixels, the limit is "
                f"{MAX_CLIP_PIXELS * max_pixels} in all; send fewer, or smaller ones"
            )
        image.draft("RGB", (2 * max(height, width),) * 2)  # a JPEG is decoded no larger than this needs
        fitted = []
        for place in range(max(0, number - max_frames), number):
            if number > 1:
                image.seek(place)
            upright = ImageOps.exif_transpose(image).convert("RGB")
            fitted.append(np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS), np.uint8))
    except ImageTooLargeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise ImageTooLargeError(f"the picture has more than {max_pixels} pixels; send it smaller") from exc
    except Exception as exc:  # Pillow's decoders raise almost anything on damaged files
        raise BadImageError(
            f"{len(data)} bytes are not a readable picture ({type(exc).__name__}); send a PNG, JPEG, WebP or GIF"
        ) from exc
    return np.stack(fitted)
