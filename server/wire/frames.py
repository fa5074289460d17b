"""Pictures to bytes and back. Owns the encodings and the limits of uploaded pictures; knows no sessions or worlds."""

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
"""The most pixels of all pictures of a clip together, as a multiple of `max_pixels`."""

# `read_clip` checks the size itself. Set once, since `warnings.catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def choose_encoding(offered: tuple[str, ...]) -> Encoding:
    """Return the first of the offered encodings that this server supports. Raises UnsupportedError."""
    for name in offered:
        if name == "jpeg":
            return "jpeg"
        if name == "png":
            return "png"
    raise UnsupportedError(f"encodings {', '.join(offered)[:100]}: this server offers only jpeg and png")


def encode_picture(picture: NDArray[np.uint8], encoding: Encoding, jpeg_quality: int) -> bytes:
    """Encode a uint8 picture `h w 3`. JPEG keeps the full colour resolution, for small bright objects; PNG is exact."""
    out = io.BytesIO()
    image = Image.fromarray(picture)
    if encoding == "png":
        image.save(out, "PNG", compress_level=1)
    else:
        image.save(out, "JPEG", quality=jpeg_quality, subsampling=0)
    return out.getvalue()


def encode_animation(frames: Sequence[NDArray[np.uint8]], fps: float) -> bytes:
    """Encode uint8 frames `h w 3` as an animated WebP that loops for ever, forwards and backwards."""
    images = [Image.fromarray(frame) for frame in (*frames, *frames[-2:0:-1])]
    out = io.BytesIO()
    images[0].save(
        out, "WEBP", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0, quality=80, method=2
    )
    return out.getvalue()


def read_clip(
    data: bytes, height: int, width: int, *, max_bytes: int, max_pixels: int, max_frames: int = 1
) -> NDArray[np.uint8]:
    """Decode an uploaded PNG, JPEG, WebP or GIF to uint8 `t h w 3`, cropped about its centre to the world's shape.

    A clip gives its last `max_frames` pictures, a still picture just one. Raises ImageTooLargeError or BadImageError.
    """
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"the picture has {len(data)} bytes, the limit is {max_bytes}; send a smaller one")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        number = getattr(image, "n_frames", 1)
        _check_size(image.width, image.height, number, max_pixels)
        image.draft("RGB", (2 * max(height, width),) * 2)  # decode a JPEG no larger than needed
        fitted = []
        for index in range(max(0, number - max_frames), number):
            if number > 1:
                image.seek(index)
            upright = ImageOps.exif_transpose(image).convert("RGB")
            fitted.append(np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS), np.uint8))
    except ImageTooLargeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise ImageTooLargeError(f"the picture has more than {max_pixels} pixels; send a smaller one") from exc
    except Exception as exc:  # Pillow's decoders raise almost anything for damaged files
        raise BadImageError(
            f"{len(data)} bytes are not a readable picture ({type(exc).__name__}); send a PNG, JPEG, WebP or GIF"
        ) from exc
    return np.stack(fitted)


def _check_size(width: int, height: int, number: int, max_pixels: int) -> None:
    """Raise ImageTooLargeError if a clip of `number` pictures has too many pixels, in one picture or in all."""
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"the picture has {width} x {height} pixels, the limit is {max_pixels}; send a smaller one"
        )
    if width * height * number > MAX_CLIP_PIXELS * max_pixels:
        raise ImageTooLargeError(
            f"the clip has {number} pictures of {width} x {height} pixels, the limit is "
            f"{MAX_CLIP_PIXELS * max_pixels} pixels in all; send fewer or smaller pictures"
        )
