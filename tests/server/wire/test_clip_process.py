"""Reading uploaded pictures in a process of its own: what a file can hide, and what it may cost."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.errors import BadImageError, ImageTooLargeError
from server.wire import clips
from server.wire.clip_process import ClipProcess

BOUNDS = {"max_bytes": 2**20, "max_pixels": 2048 * 2048}
SMALL = np.random.default_rng(0).integers(0, 256, (48, 40, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def process() -> Iterator[ClipProcess]:
    process = ClipProcess(cpu_s=20.0)  # a machine with much else to do must not fail what is right
    yield process
    process.close()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def clip(kind: str, num: int, size: tuple[int, int] = (40, 48), **options: Any) -> bytes:
    frames = [Image.new("RGB", size, (0, 20 * index % 256, 100)) for index in range(num)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def gif_with_a_later_picture(width: int, height: int) -> bytes:
    """Return a GIF of 10×10 pixels whose second picture has this size and ends early."""
    first = clip("GIF", 1, (10, 10))
    descriptor = b"," + b"".join(value.to_bytes(2, "little") for value in (0, 0, width, height)) + b"\x00"
    return first[:-1] + 2 * (descriptor + b"\x02\x02\x4c\x01\x00") + b";"


def peak_memory(pid: int) -> int:
    """Return the most memory that a process has had at a time, in bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_a_clip_is_read_as_in_this_process(process: ClipProcess, kind: str) -> None:
    data = clip(kind, 7)
    read = process.read_clip(data, 48, 40, **BOUNDS, max_frames=5)
    assert read.shape == (5, 48, 40, 3)
    assert np.array_equal(read, clips.read_clip(data, 48, 40, **BOUNDS, max_frames=5))
    assert np.abs(read[:, 0, 0, 1].astype(int) - [40, 60, 80, 100, 120]).max() < 12


def test_pictures_are_turned_composited_and_reduced_to_8_bits(process: ClipProcess) -> None:
    def read(data: bytes) -> np.ndarray:
        picture: np.ndarray = process.read_clip(data, 48, 40, **BOUNDS)[0]
        return picture

    assert np.array_equal(read(saved(Image.fromarray(SMALL), "PNG")), SMALL)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.rot90(SMALL).copy())
    assert np.array_equal(read(saved(lying, "PNG", exif=exif)), SMALL)
    assert read(saved(Image.new("RGBA", (40, 48), (255, 0, 0, 0)), "PNG")).max() == 0
    assert read(saved(Image.new("RGBA", (40, 48), (255, 0, 0, 0)), "WEBP", lossless=True, exact=True)).max() == 0
    deep = read(saved(Image.fromarray(np.full((48, 40), 128 * 257, np.uint16)), "PNG"))
    assert np.abs(deep.astype(int) - 128).max() <= 1


def test_a_jpeg_is_its_first_picture_whatever_else_it_carries(process: ClipProcess) -> None:
    large = Image.new("L", (1000, 1000), 255)
    data = saved(Image.new("RGB", (40, 48), (100, 100, 100)), "MPO", save_all=True, append_images=[large] * 3)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert np.abs(process.read_clip(data, 48, 40, **BOUNDS, max_frames=5).astype(int) - 100).max() <= 2


MAX_PIXELS = 200 * 200


@pytest.mark.parametrize(
    "hostile",
    [
        lambda: gif_with_a_later_picture(13_000, 13_000),
        lambda: gif_with_a_later_picture(65_535, 65),
        lambda: gif_with_a_later_picture(201, 200),
        lambda: saved(Image.new("1", (5000, 5000)), "PNG"),
        lambda: clip("GIF", 5, (200, 200)),
        lambda: clip("PNG", 5, (200, 200)),
        lambda: clip("WEBP", 5, (200, 200)),
        lambda: clip("GIF", 2001, (2, 2), optimize=False),
    ],
    ids=[
        "a later picture of a GIF is enormous",
        "a later picture of a GIF is wide",
        "a GIF grows from picture to picture",
        "a PNG of 25 megapixels",
        "many pictures in a GIF",
        "many pictures in a PNG",
        "many pictures in a WebP",
        "very many small pictures",
    ],
)
def test_a_file_that_holds_too_many_pixels_anywhere_is_refused_at_little_cost(
    process: ClipProcess, hostile: Callable[[], bytes]
) -> None:
    with pytest.raises(ImageTooLargeError, match="pixels"):
        process.read_clip(hostile(), 48, 40, max_bytes=2**20, max_pixels=MAX_PIXELS, max_frames=16)
    assert process.pid is not None
    if sys.platform == "linux":
        assert peak_memory(process.pid) < 150 * 2**20
    assert process.read_clip(saved(Image.fromarray(SMALL), "PNG"), 48, 40, **BOUNDS).shape == (1, 48, 40, 3)


@pytest.mark.parametrize("data", [b"", b"GIF89a", saved(Image.fromarray(SMALL), "PNG")[:60]])
def test_damaged_pictures_are_bad_images(process: ClipProcess, data: bytes) -> None:
    with pytest.raises(BadImageError, match="send a PNG, JPEG, WebP or GIF"):
        process.read_clip(data, 48, 40, **BOUNDS)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX timers")
def test_a_picture_that_takes_too_long_ends_the_process_and_the_next_one_is_read() -> None:
    process = ClipProcess(cpu_s=0.2)
    try:
        first = process.read_clip(saved(Image.fromarray(SMALL), "PNG"), 48, 40, **BOUNDS)
        pid = process.pid
        with pytest.raises(ImageTooLargeError, match=r"more than 0\.2 s"):
            process.read_clip(clip("GIF", 4), 4000, 4000, **BOUNDS, max_frames=4)
        assert process.pid is None
        assert np.array_equal(process.read_clip(saved(Image.fromarray(SMALL), "PNG"), 48, 40, **BOUNDS), first)
        assert process.pid not in (None, pid)
    finally:
        process.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory")
def test_a_picture_that_takes_too_much_memory_is_refused() -> None:
    process = ClipProcess(base_bytes=2**20, cpu_s=20.0)
    bounds = BOUNDS | {"max_pixels": 1000}
    data = saved(Image.new("RGBA", (20, 20)), "PNG")
    try:
        assert process.read_clip(data, 48, 40, **bounds).shape == (1, 48, 40, 3)
        with pytest.raises(ImageTooLargeError, match="memory"):
            process.read_clip(data, 4096, 4096, **bounds)
    finally:
        process.close()


def test_a_process_that_is_gone_is_replaced(process: ClipProcess) -> None:
    data = saved(Image.fromarray(SMALL), "PNG")
    process.read_clip(data, 48, 40, **BOUNDS)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    for _ in range(2):
        try:
            assert process.read_clip(data, 48, 40, **BOUNDS).shape == (1, 48, 40, 3)
            break
        except ImageTooLargeError:  # the signal arrived while this picture was read
            continue
    else:
        raise AssertionError


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_reply_that_breaks_off_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "breaks_off").write_text("#!/bin/sh\nread request\necho '{\"bytes\": 5760}'\necho picture\n")
    (tmp_path / "breaks_off").chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "breaks_off"))
    process = ClipProcess()
    with pytest.raises(ImageTooLargeError):
        process.read_clip(saved(Image.fromarray(SMALL), "PNG"), 48, 40, **BOUNDS)
    assert process.pid is None


def test_pictures_of_several_threads_do_not_mix(process: ClipProcess) -> None:
    wrong: list[int] = []

    def read(level: int) -> None:
        data = saved(Image.new("RGB", (40, 48), (level,) * 3), "PNG")
        wrong.extend(1 for _ in range(10) if not (process.read_clip(data, 48, 40, **BOUNDS) == level).all())

    threads = [threading.Thread(target=read, args=(level,)) for level in (10, 90, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_process_does_not_load_the_model_or_the_application() -> None:
    code = "import sys, server.wire.clip_process; print({'torch', 'fastapi'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"
