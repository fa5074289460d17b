"""Pictures to bytes. Owns the encodings; knows no sessions or worlds."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.errors import UnsupportedError
from server.wire.protocol import Encoding


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
