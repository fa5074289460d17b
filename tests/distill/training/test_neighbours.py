"""Training says once that other processes take its cores, and what then helps."""

import logging
import time
from collections.abc import Iterator

import pytest
import torch

from distill.training import neighbours
from distill.training.neighbours import watched_neighbours


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(neighbours, "LOOK_S", 0.01)
    monkeypatch.setattr(neighbours, "usable_cores", lambda: {0, 1})
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def _said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *taken: float) -> list[str]:
    """Return the warnings while others take so many cores, look by look."""
    looks: list[float] = []

    class Others:
        def cores(self) -> float:
            looks.append(taken[len(looks) % len(taken)])
            return looks[-1]

    monkeypatch.setattr(neighbours, "OtherProcesses", Others)
    with caplog.at_level(logging.WARNING), watched_neighbours():
        deadline = time.monotonic() + 10
        while torch.get_num_threads() > 1 and len(looks) < 12 and not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
    return [record.getMessage() for record in caplog.records]


def test_a_busy_neighbour_is_named_with_the_remedy(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message,) = _said(caplog, monkeypatch, 1.1)
    assert message.startswith("other processes take 1.1 of 2 cores")
    assert "`--threads 1`" in message


def test_a_small_neighbour_is_no_news(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _said(caplog, monkeypatch, 0.3) == []


def test_a_compiler_that_ends_soon_is_no_news(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _said(caplog, monkeypatch, 1.5, 1.5, 0.1) == []


def test_one_thread_waits_for_nobody(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    assert _said(caplog, monkeypatch, 2.0) == []
