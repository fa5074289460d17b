"""Importing a folder of videos as a dataset, with real files written and read by PyAV."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from distill.data.clips import Dataset, DatasetError
from distill.data.environments.video import import_videos

SIZE = 48


def _grey(number: int) -> int:
    """Return a grey level that distinguishes neighbouring frames even after lossy compression."""
    return 20 + (number * 37) % 200


def _picture(number: int, height: int = SIZE, width: int = SIZE) -> NDArray[np.uint8]:
    return np.full((height, width, 3), _grey(number), np.uint8)


def _write(path: Path, pictures: Sequence[NDArray[np.uint8]], fps: int = 30) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
        stream.pix_fmt, stream.bit_rate, stream.time_base = "yuv420p", 4_000_000, Fraction(1, fps)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _act(path: Path, actions: Sequence[dict[str, Any]]) -> None:
    path.with_suffix(".actions.jsonl").write_text("\n".join(json.dumps(action) for action in actions) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three videos of 24 frames at 30 frames per second."""
    folder = tmp_path / "My Clips"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        _write(folder / name, [_picture(number) for number in range(24)])
    return folder


def _levels(frames: NDArray[np.uint8]) -> list[float]:
    return [float(frame.mean()) for frame in frames]


def test_every_frame_is_imported_in_order_and_no_file_is_in_both_splits(folder: Path, tmp_path: Path) -> None:
    dataset = import_videos(folder, tmp_path / "data", height=32, width=32, min_frames=4, quiet=True)
    assert (dataset.spec.height, dataset.spec.width, dataset.spec.fps) == (32, 32, 30.0)
    assert dataset.spec.name == "my-clips"
    assert not dataset.spec.buttons
    assert not dataset.spec.axes
    assert len(dataset.collected["heldout"]) == 1
    counts = {split: len(dataset.paths(split)) for split in ("train", "heldout")}
    assert counts == {"train": 2, "heldout": 1}
    for split in counts:
        for episode in dataset.episodes(split):
            assert episode.frames.shape == (24, 32, 32, 3)
            assert np.abs(np.subtract(_levels(episode.frames), [_grey(i) for i in range(24)])).max() < 4
            assert episode.buttons.shape == episode.axes.shape == episode.oracle.shape == (24, 0)
            assert not episode.dones.any()
            assert not episode.rewards.any()
            assert episode.actions().num_frames == 24


def test_every_frame_keeps_its_actions(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.mp4"):
        _act(path, [{"buttons": ["up"] * (i % 2) + ["zap"] * (i % 3 == 0), "axes": [i / 4]} for i in range(24)])
    dataset = import_videos(folder, tmp_path / "data", height=32, width=32, min_frames=4, quiet=True)
    assert [button.name for button in dataset.spec.buttons] == ["up", "zap"]
    assert [button.keys for button in dataset.spec.buttons] == [("ArrowUp", "KeyW"), ("Digit1",)]
    (axis,) = dataset.spec.axes
    assert (axis.low, axis.high) == (-1.0, 5.75)
    episode = next(dataset.episodes("heldout"))
    assert episode.buttons[:, 0].tolist() == [i % 2 == 1 for i in range(24)]
    assert episode.buttons[:, 1].tolist() == [i % 3 == 0 for i in range(24)]
    assert episode.axes[:, 0].tolist() == [i / 4 for i in range(24)]


def test_a_lower_frame_rate_loses_no_button_press(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.mp4"):
        _act(path, [{"buttons": ["up"] * (i == 5), "axes": [float(i)]} for i in range(24)])
    dataset = import_videos(folder, tmp_path / "data", height=32, width=32, fps=15, min_frames=4, quiet=True)
    episode = next(dataset.episodes("train"))
    assert np.abs(np.subtract(_levels(episode.frames), [_grey(i) for i in range(0, 24, 2)])).max() < 4
    assert np.flatnonzero(episode.buttons[:, 0]).tolist() == [
        3
    ]  # output 3 shows frame 6; the actions of 5 and 6 led to it
    assert episode.axes[:, 0].tolist() == [0.0, *(2 * i - 0.5 for i in range(1, 12))]


def test_a_higher_frame_rate_repeats_pictures_with_their_actions(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.mp4"):
        _act(path, [{"buttons": ["up"] * (i == 5)} for i in range(24)])
    dataset = import_videos(folder, tmp_path / "data", height=32, width=32, fps=60, min_frames=4, quiet=True)
    episode = next(dataset.episodes("train"))
    expected = [i // 2 for i in range(47)]
    assert np.abs(np.subtract(_levels(episode.frames), [_grey(i) for i in expected])).max() < 4
    assert np.flatnonzero(episode.buttons[:, 0]).tolist() == [10, 11]


def test_pictures_are_cropped_around_their_centre_and_averaged(tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 32:96] = 200  # the middle square; its upper half has stripes that average to grey
    picture[0:32:2, 32:96] = 100
    for name in ("a.mp4", "b.mp4"):
        _write(folder / name, [picture] * 8)
    dataset = import_videos(folder, tmp_path / "data", height=16, width=16, min_frames=2, quiet=True)
    frame = next(dataset.episodes("train")).frames[0].astype(int)
    assert abs(frame[1:7, 1:15].mean() - 150) < 6
    assert abs(frame[9:, 1:15].mean() - 200) < 6
    assert np.ptp(frame[1:7, 1:15]) < 30


def test_long_videos_become_several_streams_of_the_same_split(folder: Path, tmp_path: Path) -> None:
    def cut(name: str, min_frames: int) -> Dataset:
        root = tmp_path / name
        return import_videos(folder, root, height=32, width=32, frames_per_stream=10, min_frames=min_frames, quiet=True)

    dataset = cut("data", 4)
    assert [len(episode) for episode in dataset.episodes("heldout")] == [10, 10, 4]
    levels = [level for episode in dataset.episodes("heldout") for level in _levels(episode.frames)]
    assert np.abs(np.subtract(levels, [_grey(i) for i in range(24)])).max() < 4
    assert [len(episode) for episode in cut("other", 5).episodes("heldout")] == [10, 10]


def test_no_piece_of_a_held_out_video_is_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    levels = {f"{name}.mp4": 40 + 40 * i for i, name in enumerate("abcde")}
    for name, level in levels.items():
        _write(folder / name, [np.full((SIZE, SIZE, 3), level, np.uint8)] * 20)
    dataset = import_videos(
        folder,
        tmp_path / "data",
        height=32,
        width=32,
        heldout_share=0.4,
        frames_per_stream=5,
        min_frames=5,
        quiet=True,
    )
    assert len(dataset.collected["heldout"]) == 2
    for split, count in (("train", 12), ("heldout", 8)):
        names = [name for name in levels if (name in dataset.collected["heldout"]) == (split == "heldout")]
        found = [min(levels, key=lambda name: abs(levels[name] - e.frames.mean())) for e in dataset.episodes(split)]
        assert len(found) == count
        assert set(found) == set(names)


def test_repeating_an_import_changes_nothing_and_a_different_import_is_rejected(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    import_videos(folder, root, height=32, width=32, min_frames=4, quiet=True)
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*.npz")}
    again = import_videos(folder, root, height=32, width=32, min_frames=4, quiet=True)
    assert isinstance(again, Dataset)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.npz")} == written
    with pytest.raises(DatasetError, match="holds another dataset"):
        import_videos(folder, root, height=16, width=16, min_frames=4, quiet=True)


def test_a_broken_import_leaves_no_dataset_behind(folder: Path, tmp_path: Path) -> None:
    intact = (folder / "c.mp4").read_bytes()
    for name in ("b.mp4", "c.mp4"):
        (folder / name).write_bytes(b"no video at all")
    with pytest.raises(
        DatasetError, match=r"1 of 3 videos .*\n  b\.mp4 cannot be decoded.*\n  c\.mp4 cannot be decoded"
    ):
        import_videos(folder, tmp_path / "data", height=32, width=32, min_frames=4, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    for name in ("b.mp4", "c.mp4"):
        (folder / name).write_bytes(intact)
    dataset = import_videos(folder, tmp_path / "data", height=32, width=32, min_frames=4, quiet=True)
    assert len(dataset.paths("train")) + len(dataset.paths("heldout")) == 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{}"] * 23, r"a\.actions\.jsonl has 23 lines, the video 24 frames|has 23 lines, the video more frames"),
        (["{}"] * 25, r"has 25 lines, the video 24 frames"),
        (["{}"] * 3 + ["{"], r"line 4: expected .* got '\{'"),
        (["[]"] * 24, r"line 1: expected"),
        (['{"buttons": "up"}'] * 24, r"line 1: buttons are 'up', expected a list of names"),
        (['{"axes": [1]}', '{"axes": [1, 2]}'], r"line 2: 2 axes, the first line has 1"),
        (['{"axes": ["left"]}'], r"line 1: axes are \['left'\], expected a list of numbers"),
        (['{"axes": 3}'], r"line 1: axes are 3, expected a list of numbers"),
        (['{"axes": [true]}'], r"line 1: axes are \[True\], expected a list of numbers"),
        (['{"axes": [0]}', '{"axes": [NaN]}'], r"line 2: axes are \[nan\], expected finite numbers"),
        (['{"axes": [-Infinity]}'], r"line 1: axes are \[-inf\], expected finite numbers"),
        (['{"axes": [1e39]}'], r"line 1: axes are \[1e\+39\], expected finite numbers up to 1e\+06"),
        (["{}", "", "{}"], r"line 2: expected"),
        (['{"button": ["up"]}'], r"line 1: expected"),
        (["[" * 100_000], r"line 1: expected"),
        ([], "is empty"),
    ],
)
def test_invalid_sidecars_are_reported_with_file_and_line(
    folder: Path, tmp_path: Path, lines: list[str], message: str
) -> None:
    for path in folder.glob("*.mp4"):
        path.with_suffix(".actions.jsonl").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=message):
        import_videos(folder, tmp_path / "data", height=32, width=32, min_frames=4, quiet=True)


def test_sidecars_are_required_for_all_videos_or_none(folder: Path, tmp_path: Path) -> None:
    _act(folder / "a.mp4", [{}] * 24)
    with pytest.raises(DatasetError, match=r"b\.mp4 has no b\.actions\.jsonl, others have one"):
        import_videos(folder, tmp_path / "data", height=32, width=32, quiet=True)
    for name in ("b.mp4", "c.mp4"):
        _act(folder / name, [{"axes": [0.0]}] * 24)
    with pytest.raises(DatasetError, match="differ in the number of axes"):
        import_videos(folder, tmp_path / "data", height=32, width=32, quiet=True)


def test_unusable_folders_are_rejected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="multiples of 16"):
        import_videos(folder, tmp_path / "data", height=30, width=32, quiet=True)
    too_short = r"b\.mp4 gives no stream of 64 frames at 30 frames per second, its longest has 24"
    with pytest.raises(DatasetError, match=too_short):
        import_videos(folder, tmp_path / "data", height=32, width=32, quiet=True)
    for name in ("b.mp4", "c.mp4"):
        (folder / name).unlink()
    with pytest.raises(DatasetError, match="holds 1 videos"):
        import_videos(folder, tmp_path / "data", height=32, width=32, quiet=True)
