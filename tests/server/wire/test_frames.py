"""Encoding pictures, and decoding uploaded ones."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.errors import BadImageError, ImageTooLargeError, UnsupportedError
from server.wire import clips
from server.wire.clips import read_clip
from server.wire.frames import choose_encoding, encode_picture
from world.pictures import cropped


def picture(height: int = 48, width: int = 40) -> np.ndarray:
    """Return a black picture with one small bright red square."""
    array = np.zeros((height, width, 3), dtype=np.uint8)
    array[20:22, 10:12] = (255, 40, 40)
    return array


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_png_is_exact() -> None:
    assert np.array_equal(decoded(encode_picture(picture(), "png", 90)), picture())


def test_jpeg_keeps_the_colour_and_place_of_a_small_bright_object() -> None:
    shown = decoded(encode_picture(picture(), "jpeg", 92)).astype(int)
    assert abs(shown[20:22, 10:12] - picture()[20:22, 10:12]).mean() < 25
    far = np.ones((48, 40), dtype=bool)
    far[16:24, 8:16] = False
    assert shown[far].max() <= 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_uploaded_picture_is_fitted_to_the_worlds_shape(kind: str) -> None:
    gray = np.full((100, 300, 3), 128, dtype=np.uint8)
    fitted = read_clip(encoded(gray, kind), 48, 40, max_bytes=10_000, max_pixels=10**6)[-1]
    assert fitted.shape == (48, 40, 3)
    assert fitted.dtype == np.uint8
    assert abs(fitted.astype(int) - 128).max() <= 2


def test_a_picture_of_the_worlds_shape_is_unchanged() -> None:
    assert np.array_equal(read_clip(encoded(picture()), 48, 40, max_bytes=10_000, max_pixels=10**6)[-1], picture())


def test_pictures_over_the_limits_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(ImageTooLargeError, match="bytes"):
        read_clip(bytes(1001), 48, 40, max_bytes=1000, max_pixels=10**6)[-1]
    bomb = encoded(np.zeros((2000, 2000, 3), dtype=np.uint8))
    with pytest.raises(ImageTooLargeError, match="2000 x 2000"):
        read_clip(bomb, 48, 40, max_bytes=10**6, max_pixels=10**6)[-1]


def test_a_large_jpeg_is_decoded_no_larger_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []

    def recorded(image: Image.Image, *args: Any, **options: Any) -> np.ndarray:
        sizes.append(image.size)
        return cropped(image, *args, **options)

    monkeypatch.setattr(clips, "cropped", recorded)
    large = encoded(np.full((1600, 2000, 3), 128, dtype=np.uint8), "JPEG")
    fitted = read_clip(large, 48, 40, max_bytes=10**6, max_pixels=2048**2)[-1]
    assert abs(fitted.astype(int) - 128).max() <= 2
    assert sizes == [(250, 200)]


@pytest.mark.parametrize("data", [b"", b"GIF89a", encoded(picture())[:60], b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_damaged_pictures_are_bad_images(data: bytes) -> None:
    with pytest.raises(BadImageError, match="PNG, JPEG, WebP or GIF"):
        read_clip(data, 48, 40, max_bytes=10_000, max_pixels=10**6)[-1]


def test_the_first_supported_encoding_is_chosen() -> None:
    assert choose_encoding(("av1", "png", "jpeg")) == "png"
    with pytest.raises(UnsupportedError, match="av1"):
        choose_encoding(("av1",))
