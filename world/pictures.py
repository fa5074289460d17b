"""The gate for pictures: whatever comes in becomes upright, opaque RGB with square pixels, or is refused by name.

Owns number formats, transparency, orientation and cutting to size. Knows no files, codecs or sockets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from world.errors import PictureError

BACKGROUND = (0, 0, 0, 255)
"""What shows through transparent parts: black, as in video players."""
RIGHT_ANGLE_TOLERANCE_DEGREES = 1.0
"""A display matrix this close to a multiple of 90° moves pixels without interpolation, as FFmpeg does."""
ROUNDING = 1e-3
"""How far floats may leave their range, as a share of it."""

Transpose = Image.Transpose
RIGHT_ANGLES: dict[tuple[int, int, int, int], Transpose | None] = {
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Transpose.ROTATE_180,
    (0, 1, -1, 0): Transpose.ROTATE_270,
    (0, -1, 1, 0): Transpose.ROTATE_90,
    (0, 1, 1, 0): Transpose.TRANSPOSE,
    (0, -1, -1, 0): Transpose.TRANSVERSE,
}
"""(a, b, c, d) → what moves the pixel (x, y) to (a·x + c·y, b·x + d·y), y pointing down."""


def opaque(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB: transparency composited on `BACKGROUND`, 16 bits reduced to 8."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
        image.info.pop("transparency", None)  # a 16-bit level, which means another one now
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, BACKGROUND), rgba)
    return image.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Return a picture that Pillow has opened as RGB, turned as its EXIF orientation says."""
    return opaque(ImageOps.exif_transpose(image))


class ArrayGate:
    """Turns arrays from one source, such as an environment's `render`, into RGB images.

    Accepts `h w`, `h w c` and `c h w` with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA) channels; bool; integers in
    0…255 or, for 16 bits, 0…65535; floats in 0…1 or 0…255. A source keeps its first full scale. source: what error
    messages call it.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._full_scale: float | None = None

    def image(self, array: object) -> Image.Image:
        """Return the array as an RGB image. Raises PictureError naming what is wrong with it."""
        pixels = self._bytes(self._channels_last(self._array(array)))
        if pixels.shape[2] <= 2:
            pixels = np.concatenate([np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]], axis=2)
        return opaque(Image.fromarray(np.ascontiguousarray(pixels)))

    def _array(self, array: object) -> NDArray[np.generic]:
        try:
            found = np.asarray(array)
        except ValueError as exc:  # a list with rows of different lengths
            raise self._refused(f"{type(array).__name__}s that are no rectangular array") from exc
        if found.dtype.kind not in "buif":
            raise self._refused("None" if array is None else f"{type(array).__name__} of {found.dtype}")
        return found

    def _channels_last(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return the array as `h w c`; a last dimension of 1 to 4 counts as the channels."""
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or 0 in array.shape:
            raise self._refused(f"an array of shape {array.shape}")
        if array.shape[2] not in range(1, 5):
            if array.shape[0] not in range(1, 5):
                raise self._refused(f"an array of shape {array.shape}")
            array = array.transpose(1, 2, 0)
        return array

    def _bytes(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Return the array in 0…255."""
        if array.dtype == np.uint8:
            return array  # type: ignore[return-value]  # the dtype has just been checked
        if array.dtype == np.bool_:
            return array.astype(np.uint8) * np.uint8(255)
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise self._refused(f"{array.dtype} with values that are not finite")
        if low < -ROUNDING:
            raise self._refused(f"{array.dtype} from {low:g} to {high:g}")
        levels = array.astype(np.float64) * (255.0 / self._scale(array.dtype, high))
        return np.rint(levels).clip(0, 255).astype(np.uint8)

    def _scale(self, dtype: np.dtype[np.generic], high: float) -> float:
        """Return the value of white, which a source may not change: a fade to black would flicker."""
        scales = (1.0, 255.0) if dtype.kind == "f" else (255.0, 65535.0) if dtype.itemsize == 2 else (255.0,)
        fitting = [scale for scale in scales if high <= scale * (1 + ROUNDING)]
        if not fitting:
            raise self._refused(f"{dtype} up to {high:g}")
        if high <= 0.0:
            return fitting[0]
        if self._full_scale is not None and self._full_scale < fitting[0]:
            raise self._refused(f"{dtype} first within 0…{self._full_scale:g}, now up to {high:g}")
        self._full_scale = self._full_scale or fitting[0]
        return self._full_scale

    def _refused(self, found: str) -> PictureError:
        return PictureError(
            f"{self._source} gave {found} instead of a picture: uint8 `h w 3` with values in 0…255 always works; "
            "floats must lie in 0…1 or 0…255"
        )


def turned(image: Image.Image, matrix: Sequence[float], pixel_aspect: float = 1.0) -> tuple[Image.Image, float]:
    """Turn and mirror an image by a display matrix. Return it with its pixel aspect.

    matrix: a, b, c, d of FFmpeg's display matrix (rows `a b u`, `c d v`), which moves the pixel (x, y) to
    (a·x + c·y, b·x + d·y), y pointing down. Its scale is ignored, since containers also state it as pixel aspect.
    pixel_aspect: width of a pixel divided by its height. At angles that are no multiple of 90° the image keeps its
    size, and its corners are cut off, as FFmpeg and its players do.
    """
    a, b, c, d = matrix
    across, down = math.hypot(a, c), math.hypot(b, d)
    if not (math.isfinite(across) and math.isfinite(down) and across > 0 and down > 0):
        return image, pixel_aspect  # players ignore a matrix without a direction
    a, b, c, d = a / across, b / down, c / across, d / down
    nearest = (round(a), round(b), round(c), round(d))
    if nearest in RIGHT_ANGLES and _apart_degrees((a, b, c, d), nearest) <= RIGHT_ANGLE_TOLERANCE_DEGREES:
        operation = RIGHT_ANGLES[nearest]
        swapped = nearest[0] == 0
        return (image if operation is None else image.transpose(operation)), (
            1 / pixel_aspect if swapped else pixel_aspect
        )
    if abs(determinant := a * d - b * c) < 1e-6:
        return image, pixel_aspect
    square = image.resize((max(1, round(image.width * pixel_aspect)), image.height), Image.Resampling.BILINEAR)
    x, y = square.width / 2, square.height / 2
    back = (d / determinant, -c / determinant, -b / determinant, a / determinant)
    data = (back[0], back[1], x - back[0] * x - back[1] * y, back[2], back[3], y - back[2] * x - back[3] * y)
    return square.transform(square.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR), 1.0


def _apart_degrees(matrix: tuple[float, ...], other: tuple[int, ...]) -> float:
    return math.degrees(max(abs(one - two) for one, two in zip(matrix, other, strict=True)))


def cropped(
    image: Image.Image,
    height: int,
    width: int,
    *,
    pixel_aspect: float = 1.0,
    resample: Image.Resampling = Image.Resampling.BOX,
) -> NDArray[np.uint8]:
    """Cut an RGB image about its centre to the shape of `height`×`width` square pixels and resize it: `h w 3`.

    pixel_aspect: width of the image's pixels divided by their height.
    """
    scale = min(image.width * pixel_aspect / width, image.height / height)
    wide, high = min(width * scale / pixel_aspect, image.width), min(height * scale, image.height)
    left, top = (image.width - wide) / 2, (image.height - high) / 2
    return np.array(image.resize((width, height), resample, box=(left, top, left + wide, top + high)))


def stretched(image: Image.Image, height: int, width: int) -> NDArray[np.uint8]:
    """Resize an RGB image by area averaging, whatever its shape, so that nothing is cut off: `height width 3`."""
    return np.array(image.resize((width, height), Image.Resampling.BOX))
