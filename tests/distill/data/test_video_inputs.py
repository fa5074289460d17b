"""Videos as cameras, phones and screen recorders make them: turned, stretched, transparent, broken, with odd clocks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import lightcone
from distill.data.clips import Dataset, DatasetError
from distill.data.environments.video import import_videos
from distill.data.environments.video_clock import playable_rate, typical_rate
from tests.distill.data.videos import Importer, lengths, noise, twice, write

RED, BLUE = (200, 0, 0), (0, 0, 200)


def halves(left: tuple[int, ...] = RED, right: tuple[int, ...] = BLUE, size: int = 64) -> NDArray[np.uint8]:
    picture = np.empty((size, size, len(left)), np.uint8)
    picture[:, : size // 2], picture[:, size // 2 :] = left, right
    return picture


def first(dataset: Dataset) -> NDArray[np.int64]:
    frame: NDArray[np.int64] = next(dataset.episodes("train")).frames[0].astype(np.int64)
    return frame


def is_near(colours: NDArray[np.int64], colour: Sequence[int]) -> bool:
    return bool(np.abs(colours - np.array(colour)).max() < 30)


@pytest.mark.parametrize(
    ("degrees", "flips", "place", "colour"),
    [
        (0, {}, np.s_[:, :12], RED),
        (-90, {}, np.s_[:12], RED),
        (90, {}, np.s_[20:], RED),
        (180, {}, np.s_[:, 20:], RED),
        (0, {"hflip": True}, np.s_[:, 20:], RED),
        (90, {"vflip": True}, np.s_[:12], RED),
    ],
)
def test_a_turned_or_mirrored_video_is_imported_as_players_show_it(
    folder: Path, importer: Importer, degrees: float, flips: dict[str, bool], place: Any, colour: tuple[int, ...]
) -> None:
    twice(folder, ".mp4", [halves()] * 8, setup=lambda stream: stream.set_display_rotation(degrees, **flips))
    assert is_near(first(importer())[place], colour)


@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(2), (96, 48)), (Fraction(1, 2), (48, 96))])
@pytest.mark.parametrize("turned", [False, True])
def test_a_disc_of_pixels_that_are_not_square_is_round(
    folder: Path, importer: Importer, aspect: Fraction, shape: tuple[int, int], turned: bool
) -> None:
    y, x = ((np.arange(size) + 0.5) / size - 0.5 for size in shape)
    disc = np.where(y[:, None, None] ** 2 + x[None, :, None] ** 2 < 0.1, 255, 0).astype(np.uint8).repeat(3, 2)

    def setup(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = aspect
        if turned:
            stream.set_display_rotation(90)

    twice(folder, ".mp4", [disc] * 8, setup=setup)
    rows, columns = np.nonzero(first(importer())[..., 0] > 127)
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
    assert np.ptp(rows) > 16


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "tags"),
    [
        (".mov", "qtrle", "argb", {}),
        (".mov", "png", "rgba", {}),
        (".mov", "prores_ks", "yuva444p10le", {}),
        (".webm", "libvpx-vp9", "yuva420p", {"alpha_mode": "1"}),
        (".webm", "libvpx", "yuva420p", {"alpha_mode": "1"}),
    ],
)
def test_transparent_parts_are_black(
    folder: Path, importer: Importer, suffix: str, codec: str, pix_fmt: str, tags: dict[str, str]
) -> None:
    picture = halves((200, 0, 0, 255), (200, 0, 0, 0))

    def setup(stream: Any) -> None:
        stream.metadata.update(tags)
        if codec == "libvpx":
            stream.options = {"auto-alt-ref": "0"}

    twice(folder, suffix, [picture] * 8, codec=codec, pix_fmt=pix_fmt, setup=setup)
    dataset = importer()
    assert is_near(first(dataset)[:, :12], RED)
    assert is_near(first(dataset)[:, 20:], (0, 0, 0))
    assert lengths(dataset) == [8]


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("libx265", "yuv420p10le"), ("libsvtav1", "yuv420p10le"), ("ffv1", "gray16le"), ("mjpeg", "yuvj422p")],
)
def test_pictures_of_every_depth_and_codec_are_read(folder: Path, importer: Importer, codec: str, pix_fmt: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    twice(
        folder,
        ".mkv",
        [np.full((64, 64, 3), 30 * number, np.uint8) for number in range(8)],
        codec=codec,
        pix_fmt=pix_fmt,
    )
    (episode,) = importer().episodes("train")
    assert np.abs(episode.frames[:, 16, 16].mean(1) - 30 * np.arange(8)).max() < 4


BURST = [*range(60), *range(360, 420)]
"""At 60 pictures per second with a pause of five seconds: a screen recording."""


@pytest.mark.parametrize(
    ("times", "per_second", "suffix", "rate", "num_frames", "said"),
    [
        (BURST, 60, ".mp4", 60.0, 420, "300 frames repeat the picture before"),
        (range(96), 240, ".mp4", 60.0, 24, "72 of 96 pictures fall between two frames"),
        (range(40), 100, ".mp4", 50.0, 20, "20 of 40 pictures fall between two frames"),
        (range(60), 60, ".mkv", 60.0, 60, "the videos have 60"),
        ([0, 2, 4, 5, 8, 10, 12, 14], 60, ".mp4", 30.0, 8, "30 frames per second"),
        (range(0, 40, 4), 1, ".mp4", 0.25, 10, "0.25 frames per second"),
    ],
    ids=["pause", "slow motion", "100", "milliseconds", "jitter", "time lapse"],
)
def test_the_rate_is_the_typical_distance_of_the_pictures_up_to_what_can_be_played(
    folder: Path,
    importer: Importer,
    caplog: pytest.LogCaptureFixture,
    times: Sequence[int],
    per_second: int,
    suffix: str,
    rate: float,
    num_frames: int,
    said: str,
) -> None:
    twice(folder, suffix, noise(len(times), 16), times, per_second=per_second)
    dataset = importer()
    assert dataset.spec.fps == pytest.approx(rate, rel=0.005)
    assert lengths(dataset) == [num_frames]
    assert said in caplog.text


def test_a_rate_can_be_given_and_is_checked(folder: Path, importer: Importer, caplog: pytest.LogCaptureFixture) -> None:
    twice(folder, ".mp4", noise(96, 16), per_second=240)
    for fps in (0.0, -1.0, 61.0, float("nan"), float("inf")):
        with pytest.raises(DatasetError, match="worlds are played at more than 0 and at most 60"):
            importer(fps=fps)
    assert importer(fps=24.0).spec.fps == 24.0
    assert "24 frames per second as given; the videos have 240" in caplog.text
    assert "pictures are cut about their centre to the shape of 32x32" in caplog.text
    with pytest.raises(DatasetError, match=r"holds another dataset.*fps 24\.0, not 30"):
        importer(fps=30)
    assert importer().spec.fps == 24.0


def test_typical_rates() -> None:
    milliseconds = np.diff(np.round(np.arange(200) / 60, 3))
    assert typical_rate([milliseconds], []) == pytest.approx(60, rel=0.002)
    assert typical_rate([milliseconds], [60.0]) == 60.0
    assert typical_rate([np.array([0.0, 0.0, 0.04, 0.04, 0.04, 600.0])], [1.0]) == 25.0
    assert [playable_rate(rate) for rate in (24.0, 59.94, 60.0, 60.01, 144.0)] == [24.0, 59.94, 60.0, 60.01, 48.0]


@pytest.mark.parametrize(
    ("times", "parts", "said"),
    [
        ([*range(20), *range(18020, 18040)], [20, 20], "its clock jumps by 600 s before picture 20"),
        ([*range(20), *range(330, 350)], [20, 20], "jumps by 10.4 s"),
        ([*range(20), *range(310, 330)], [330], "290 frames repeat the picture before"),
    ],
)
def test_a_stream_ends_where_the_clock_jumps(
    folder: Path, importer: Importer, caplog: pytest.LogCaptureFixture, times: list[int], parts: list[int], said: str
) -> None:
    twice(folder, ".mkv", noise(40, 16), times)
    assert lengths(importer()) == parts
    assert said in caplog.text


def test_a_stream_ends_where_the_clock_runs_backwards(
    folder: Path, importer: Importer, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder / "one.mp4", noise(24, 16), container_format="mpegts")
    joined = 2 * (folder / "one.mp4").read_bytes()
    for name in ("one.mp4", "two.mp4"):
        (folder / name).write_bytes(joined)
    assert lengths(importer()) == [24, 24]
    assert "its clock runs back by 0.767 s before picture 24, where a new stream begins" in caplog.text


def test_what_cannot_be_decoded_to_the_end_is_kept_up_to_there(
    folder: Path, importer: Importer, caplog: pytest.LogCaptureFixture
) -> None:
    twice(folder, ".mp4", noise(40, 32))
    data = bytearray((folder / "one.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8000] = bytes(8000)
    (folder / "one.mp4").write_bytes(data)
    (folder / "two.actions.jsonl").write_text("{}\n" * 40)
    (folder / "one.actions.jsonl").write_text("{}\n" * 40)
    dataset = importer()
    kept = {length for split in ("train", "heldout") for length in lengths(dataset, split)}
    assert 40 in kept
    assert 4 < min(kept) < 40
    assert "one.mp4: cannot be decoded" in caplog.text
    assert "pictures, which are kept" in caplog.text


def test_files_that_cannot_be_used_are_left_out_by_name_and_hidden_ones_in_silence(
    folder: Path, importer: Importer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mp4", "b.mp4"):
        write(folder / name, noise(12, 16))
    write(folder / "c.mp4", noise(3, 16))
    (folder / "d.mp4").write_bytes(b"no video")
    (folder / "e.mp4").mkdir()
    (folder / "f.mp4").write_bytes(b"")
    (folder / "g.mp4").symlink_to(folder / "gone.mp4")
    with av.open(str(folder / "h.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    for name in ("._a.mp4", ".DS_Store", "._a.actions.jsonl", ".hidden.mov"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    (folder / "notes.txt").write_text("")
    dataset = importer()
    assert lengths(dataset) == lengths(dataset, "heldout") == [12]
    assert dataset.collected["heldout"] in (["a.mp4"], ["b.mp4"]), "among those that are long enough"
    assert {name: reason.split(",")[0] for name, reason in dataset.collected["left_out"].items()} == {
        "c.mp4": "gives no stream of 4 frames at 30 frames per second",
        "d.mp4": "cannot be decoded: Invalid data found when processing input",
        "e.mp4": "is no file",
        "f.mp4": "cannot be decoded: Invalid data found when processing input",
        "g.mp4": "is no file",
        "h.mp4": "holds no video stream",
    }
    assert all(f"left out: {name}" in caplog.text for name in dataset.collected["left_out"])
    assert dataset.spec.description == "Learned from 2 videos."


def test_folders_without_videos_say_what_is_there(folder: Path, importer: Importer, tmp_path: Path) -> None:
    (folder / "clip.wmv").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"holds 0 videos .*beside clip\.wmv"):
        importer()
    with pytest.raises(DatasetError, match="is not a folder"):
        import_videos(folder / "clip.wmv", tmp_path / "data")
    with pytest.raises(DatasetError, match="is not a folder"):
        import_videos(folder / "nothing", tmp_path / "data")


def test_a_cover_picture_is_not_the_video(folder: Path, importer: Importer) -> None:
    for name in ("a.mp4", "b.mp4"):
        with av.open(str(folder / name), "w") as container:
            cover = container.add_stream("mjpeg", rate=1)
            cover.height = cover.width = 16
            cover.pix_fmt = "yuvj444p"
            cover.disposition = av.stream.Disposition.attached_pic
            stream = container.add_stream("libx264", rate=30)
            stream.height = stream.width = 16
            stream.pix_fmt = "yuv444p"
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts = 0
            container.mux(cover.encode(frame.reformat(format="yuvj444p")))
            for number, picture in enumerate(noise(12, 16)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv444p")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    assert lengths(importer()) == [12]


def test_the_command_line_says_the_rate_and_refuses_at_once_what_is_too_short_to_train_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIGHTCONE_RUNS", str(tmp_path))
    twice(folder, ".mp4", noise(24, 16))
    words = ["collect", "--videos", str(folder), "--height", "16", "--width", "16"]
    assert lightcone.main([*words, "--name", "a", "--fps", "15", "--min-frames", "4"]) == 2
    assert "has 11 frames that an action led to, and training needs 18" in capsys.readouterr().err
    assert lightcone.main([*words, "--name", "b", "--min-frames", "20"]) == 0
    assert "`lightcone train b` continues from there" in capsys.readouterr().out
    assert lightcone.main([*words, "--name", "c"]) == 2
    assert "its longest has 24: choose a smaller --min-frames" in capsys.readouterr().err
    assert not (tmp_path / "c").exists() or not list((tmp_path / "c").iterdir())
