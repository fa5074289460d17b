"""A folder of videos and its import."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from distill.data.clips import Dataset
from distill.data.environments.video import import_videos
from tests.distill.data.videos import Importer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    return tmp_path / "clips"


@pytest.fixture
def importer(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Importer:
    """Import the folder at 32×32 with a minimum of 4 frames."""
    caplog.set_level(logging.INFO)

    def run(**options: Any) -> Dataset:
        return import_videos(
            folder, tmp_path / "data", **{"height": 32, "width": 32, "min_frames": 4, **options}, quiet=True
        )

    return run
