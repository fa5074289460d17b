"""Sidecars of videos as editors write them: read, or refused by file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from distill.data.clips import DatasetError
from tests.distill.data.videos import Importer, noise, twice

LINES = '{"buttons": ["up"]}\n' * 12


@pytest.mark.parametrize(
    "data",
    [
        LINES.encode("utf-8-sig"),
        (LINES + "\n \n\n").encode(),
        LINES.replace("\n", "\r\n").encode(),
        LINES.rstrip().encode(),
        LINES.replace('"up"', '"up\u2028left"').encode(),
    ],
    ids=["byte-order mark", "empty lines at the end", "Windows", "no last line break", "line separator in a name"],
)
def test_text_as_editors_write_it_is_read(folder: Path, importer: Importer, data: bytes) -> None:
    twice(folder, ".mp4", noise(12, 16))
    for name in ("one", "two"):
        (folder / f"{name}.actions.jsonl").write_bytes(data)
    assert next(importer().episodes("train")).buttons.all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (LINES.encode("utf-16"), r"one\.actions\.jsonl is written in UTF-16: save it as UTF-8"),
        (LINES.encode("utf-16-le"), r"one\.actions\.jsonl, line 1: expected"),
        (LINES.replace("up", "ü").encode("latin-1"), r"one\.actions\.jsonl, line 1: byte 0xfc is not UTF-8"),
        ((LINES + '{"buttons": ["\u20ac"]}').encode("cp1252"), r"line 13: byte 0x80 is not UTF-8"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
    ],
)
def test_other_encodings_are_refused_in_a_line(folder: Path, importer: Importer, data: bytes, message: str) -> None:
    twice(folder, ".mp4", noise(12, 16))
    for name in ("one", "two"):
        (folder / f"{name}.actions.jsonl").write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        importer()
    assert "two.actions.jsonl" in str(caught.value), "all in one go"


def test_every_sidecar_of_the_wrong_length_is_named(folder: Path, importer: Importer, caplog: Any) -> None:
    twice(folder, ".mp4", noise(12, 16))
    (folder / "one.actions.jsonl").write_text("{}\n" * 11)
    (folder / "two.actions.jsonl").write_text("{}\n" * 13)
    (folder / "three.actions.jsonl").write_text("{}\n")
    with pytest.raises(
        DatasetError, match=r"one.* has 11 lines, the video more frames.*\n.*two.* has 13 lines, .* 12 "
    ):
        importer()
    assert "three.actions.jsonl belongs to no video" in caplog.text


def test_the_sidecar_in_the_documents_is_read_as_they_say(folder: Path, importer: Importer) -> None:
    document = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```json\n(\{\"buttons.*?)```", document, flags=re.DOTALL)
    twice(folder, ".mp4", noise(12, 16))
    for name in ("one", "two"):
        (folder / f"{name}.actions.jsonl").write_text(4 * lines)
    dataset = importer()
    assert [button.name for button in dataset.spec.buttons] == ["fire", "up"]
    episode = next(dataset.episodes("train"))
    assert episode.buttons[:3].tolist() == [[False, False], [True, True], [False, True]]
    assert episode.axes[:3].tolist() == [[0.0, 0.0], [0.25, -1.0], [0.5, 0.0]]
