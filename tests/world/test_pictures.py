"""The gate for pictures: number formats, channels, transparency, orientation and shape."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from world.errors import PictureError
from world.pictures import ArrayGate, cropped, opaque, stretched, turned, upright

RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Return the colours of the four corners: top left, top right, bottom left, bottom right."""
    pixels = np.asarray(image)
    return [tuple(int(value) for value in pixels[y, x]) for y in (0, -1) for x in (0, -1)]


@pytest.fixture
def marked() -> Image.Image:
    """An image 6 wide and 4 high with another colour in each corner."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :3], pixels[:2, 3:], pixels[2:, :3], pixels[2:, 3:] = RED, GREEN, BLUE, GREY
    return Image.fromarray(pixels)


PICTURE = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "array",
    [
        PICTURE,
        PICTURE.astype(np.int64),
        PICTURE.astype(np.float64),
        PICTURE.tolist(),
        (PICTURE / 255).astype(np.float32),
        PICTURE.astype(np.uint16) * 257,
        PICTURE.transpose(2, 0, 1),
        PICTURE[:, ::-1][:, ::-1],
        np.dstack([PICTURE, np.full((7, 9), 255, np.uint8)]),
    ],
    ids=["uint8", "int64", "float 255", "list", "float 1", "uint16", "channels first", "view", "opaque RGBA"],
)
def test_every_number_format_gives_the_same_picture(array: object) -> None:
    assert np.array_equal(np.asarray(ArrayGate("it").image(array)), PICTURE)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 1), (1, 7, 9)])
def test_grey_becomes_rgb(shape: tuple[int, ...]) -> None:
    grey = PICTURE[..., 0].reshape(shape)
    assert np.array_equal(np.asarray(ArrayGate("it").image(grey)), np.dstack([PICTURE[..., 0]] * 3))
    assert np.asarray(ArrayGate("it").image(grey > 127)).max() == 255


@pytest.mark.parametrize("channels", [2, 4])
def test_transparent_parts_of_an_array_are_black(channels: int) -> None:
    array = np.full((4, 4, channels), 200, np.uint8)
    array[..., -1] = 255
    array[:, 2:, -1] = 0
    array[0, 0, -1] = 128
    shown = np.asarray(ArrayGate("it").image(array))
    assert (shown[1:, :2] == 200).all()
    assert (shown[:, 2:] == 0).all()
    assert abs(int(shown[0, 0, 0]) - 100) <= 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, "None instead"),
        ("picture", "str of <U7"),
        (np.zeros(5), r"an array of shape \(5,\)"),
        (np.zeros((2, 9, 9, 3)), r"an array of shape \(2, 9, 9, 3\)"),
        (np.zeros((9, 9, 5)), r"an array of shape \(9, 9, 5\)"),
        (np.zeros((0, 9, 3)), r"an array of shape \(0, 9, 3\)"),
        ([[1, 2], [3]], "lists that are no rectangular array"),
        (np.full((4, 4, 3), np.nan), "float64 with values that are not finite"),
        (np.full((4, 4, 3), np.inf), "float64 with values that are not finite"),
        (np.full((4, 4, 3), -1.0), "float64 from -1 to -1"),
        (np.full((4, 4, 3), 256.5), "float64 up to 256.5"),
        (np.full((4, 4, 3), 300), "int64 up to 300"),
        (np.full((4, 4, 3), 1j), "ndarray of complex128"),
    ],
)
def test_what_is_no_picture_is_refused_with_name_and_remedy(array: object, message: str) -> None:
    with pytest.raises(PictureError, match=rf"Odd-v0 gave {message}.*uint8 `h w 3`"):
        ArrayGate("Odd-v0").image(array)


def test_a_source_keeps_its_full_scale() -> None:
    gate = ArrayGate("it")
    assert np.asarray(gate.image(np.full((4, 4, 3), 200.0))).max() == 200
    assert np.asarray(gate.image(np.full((4, 4, 3), 1.0))).max() == 1, "a fade to black does not flicker"
    gate = ArrayGate("it")
    gate.image(np.zeros((4, 4, 3)))
    assert np.asarray(gate.image(np.full((4, 4, 3), 0.5))).max() == 128
    with pytest.raises(PictureError, match="first within 0…1, now up to 200"):
        gate.image(np.full((4, 4, 3), 200.0))


def _png(image: Image.Image, **options: object) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return Image.open(io.BytesIO(out.getvalue()))


def test_opened_pictures_of_every_kind_become_rgb() -> None:
    rgba = Image.new("RGBA", (4, 4), (200, 100, 0, 128))
    assert np.abs(np.asarray(opaque(_png(rgba))).astype(int) - (100, 50, 0)).max() <= 1
    assert np.asarray(opaque(_png(Image.new("LA", (4, 4), (200, 0))))).max() == 0
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    assert np.asarray(opaque(_png(palette, transparency=1))).max() == 0
    assert corners(opaque(_png(palette)))[0] == (200, 10, 10)
    keyed = Image.new("RGB", (4, 4), (200, 10, 10))
    assert np.asarray(opaque(_png(keyed, transparency=(200, 10, 10)))).max() == 0
    deep = Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    assert np.abs(np.asarray(opaque(_png(deep))).astype(int) - 128).max() <= 1
    assert np.asarray(opaque(Image.new("1", (4, 4), 1))).min() == 255
    assert opaque(Image.new("CMYK", (4, 4))).mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(marked: Image.Image, orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = marked if orientation == 1 else marked.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert corners(upright(_png(stored, exif=exif))) == [RED, GREEN, BLUE, GREY]


@pytest.mark.parametrize(
    ("matrix", "shown", "aspect"),
    [
        ((1, 0, 0, 1), [RED, GREEN, BLUE, GREY], 2.0),
        ((0, 1, -1, 0), [BLUE, RED, GREY, GREEN], 0.5),  # a phone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), [GREY, BLUE, GREEN, RED], 2.0),
        ((0, -1, 1, 0), [GREEN, GREY, RED, BLUE], 0.5),
        ((-1, 0, 0, 1), [GREEN, RED, GREY, BLUE], 2.0),
        ((1, 0, 0, -1), [BLUE, GREY, RED, GREEN], 2.0),
        ((0, 1, 1, 0), [RED, BLUE, GREEN, GREY], 0.5),
        ((0, -1, -1, 0), [GREY, GREEN, BLUE, RED], 0.5),
        ((0, 131072, -65536, 0), [BLUE, RED, GREY, GREEN], 0.5),
        ((0.9999, 0.01, -0.01, 0.9999), [RED, GREEN, BLUE, GREY], 2.0),
        ((0, 0, 0, 0), [RED, GREEN, BLUE, GREY], 2.0),
    ],
)
def test_display_matrices_turn_and_mirror(
    marked: Image.Image, matrix: tuple[float, ...], shown: list[tuple[int, ...]], aspect: float
) -> None:
    image, found = turned(marked, matrix, 2.0)
    assert corners(image) == shown
    assert found == aspect


@pytest.mark.parametrize("mirrored", [False, True])
def test_other_angles_turn_about_the_centre(mirrored: bool) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[30:34, 50:54] = 255  # to the right of the centre
    angle, sign = np.deg2rad(30), -1 if mirrored else 1
    matrix = (sign * np.cos(angle), sign * np.sin(angle), -np.sin(angle), np.cos(angle))
    image, aspect = turned(Image.fromarray(pixels), matrix)
    y, x = (np.argwhere(np.asarray(image)[..., 0] > 100).mean(0) + 0.5) - 32
    assert aspect == 1.0
    assert (x, y) == pytest.approx((sign * 20 * np.cos(angle), sign * 20 * np.sin(angle)), abs=0.6)


def _disc(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    inside = ((x + 0.5) / width - 0.5) ** 2 + ((y + 0.5) / height - 0.5) ** 2 < 0.09
    return Image.fromarray(np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, 2))


def _extent(picture: NDArray[np.uint8]) -> tuple[int, int]:
    rows, columns = np.nonzero(picture[..., 0] > 127)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize("aspect", [2.0, 0.5, 16 / 11])
def test_pixels_that_are_not_square_are_made_square_before_cutting(aspect: float) -> None:
    disc = _disc(round(96 / aspect), 96)
    high, wide = _extent(cropped(disc, 48, 48, pixel_aspect=aspect))
    assert abs(high - wide) <= 2
    assert abs(high - 0.6 * 48) <= 2


def test_cropping_cuts_and_stretching_does_not(marked: Image.Image) -> None:
    assert cropped(marked, 16, 16).shape == stretched(marked, 16, 16).shape == (16, 16, 3)
    wide = Image.fromarray(np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (50, 1, 3)))
    assert cropped(wide, 16, 16)[:, 0, 0].max() > 24
    assert stretched(wide, 16, 16)[:, 0, 0].max() < 8
    assert np.array_equal(stretched(marked, 4, 6), np.asarray(marked))
