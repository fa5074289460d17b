"""Compiling in the background, with a stand-in for the child process: the order of things, and whatever fails."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.compilation import background
from server.compilation.background import BackgroundCompilation, Worker
from server.compilation.parts import ATTENTION, Part
from world.errors import CompilationError

WITHIN_S = 20.0


@pytest.fixture(autouse=True)
def warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever level other tests have left behind."""
    caplog.set_level(logging.WARNING)


class FakeWorker(Worker):
    """Makes parts as `make` says, which may raise."""

    def __init__(self, make: Callable[[Part], object]) -> None:
        self._make = make
        self.ended = threading.Event()

    def make(self, part: Part) -> None:
        self._make(part)

    def kill(self) -> None:
        self.ended.set()

    end = kill


def _part(batch: int) -> Part:
    return Part(world="tiny", folder=Path("tiny"), dtype="float32", batch=batch)


def _background(
    make: Callable[[Part], None], on_part: Callable[[Part], None], batches: tuple[int, ...] = (ATTENTION, 1, 2)
) -> tuple[BackgroundCompilation, FakeWorker]:
    worker = FakeWorker(make)
    parts = [_part(batch) for batch in batches]
    return BackgroundCompilation(parts, ["tiny"], set, on_part, lambda: worker), worker


def _wait_for_end(compilation: BackgroundCompilation) -> None:
    compilation._thread.join(WITHIN_S)
    assert not compilation._thread.is_alive()


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "check_compiler", lambda: None)


def test_parts_are_handed_over_one_by_one_and_the_progress_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    statuses, ready = [], []
    compilation, worker = _background(lambda _: statuses.append(compilation.status), lambda part: ready.append(part))
    compilation.start()
    _wait_for_end(compilation)
    assert statuses == ["compiling 1 of 3", "compiling 2 of 3", "compiling 3 of 3"]
    assert [part.batch for part in ready] == [ATTENTION, 1, 2]
    assert (compilation.status, compilation.num_parts_left) == ("compiled", 0)
    assert worker.ended.is_set()
    assert "compiled attention in 0 s (1 of 3)" in caplog.text
    assert "compiled everything" in caplog.text


def test_a_failure_is_one_warning_and_ends_the_compilation(caplog: pytest.LogCaptureFixture) -> None:
    def make(part: Part) -> None:
        if part.batch == 2:
            raise CompilationError("OSError: no space left on device")

    ready: list[Part] = []
    compilation, worker = _background(make, ready.append, (1, 2, 4))
    compilation.start()
    _wait_for_end(compilation)
    assert [part.batch for part in ready] == [1]
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "no space left" in warning.getMessage()
    assert compilation.status == "failed; the log says why"
    assert worker.ended.is_set()


def test_code_that_cannot_be_loaded_is_one_warning_whatever_it_raises(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def on_part(part: Part) -> None:
        tried.append(part.batch)
        if part.batch != 2:
            raise PermissionError("read-only file system")

    ready = [_part(batch) for batch in (1, 2)]
    compilation = BackgroundCompilation([_part(4)], ["tiny"], set, on_part, lambda: FakeWorker(lambda _: None), ready)
    compilation.start()
    _wait_for_end(compilation)
    assert tried == [1, 2, 4]
    first, last = (record.getMessage() for record in caplog.records)
    assert "tiny for 1 at once is compiled and not used" in first
    assert "read-only file system" in last
    assert compilation.status == "failed; the log says why"


def test_stopping_does_not_wait_until_all_code_is_loaded() -> None:
    loaded: list[int] = []
    is_loading, may_go_on = threading.Event(), threading.Event()

    def on_part(part: Part) -> None:
        loaded.append(part.batch)
        is_loading.set()
        assert may_go_on.wait(WITHIN_S)

    ready = [_part(batch) for batch in (1, 2, 4)]
    compilation = BackgroundCompilation([], ["tiny"], set, on_part, ready=ready)
    compilation.start()
    assert is_loading.wait(WITHIN_S)
    stopping = threading.Thread(target=compilation.stop)
    stopping.start()
    assert compilation._is_stopping.wait(WITHIN_S)
    may_go_on.set()
    stopping.join(WITHIN_S)
    assert loaded == [1]


def test_without_attention_the_network_is_compiled_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def make(part: Part) -> None:
        if part.batch == ATTENTION:
            raise CompilationError("an old compiler")

    ready: list[Part] = []
    compilation, _ = _background(make, ready.append)
    compilation.start()
    _wait_for_end(compilation)
    assert [part.batch for part in ready] == [1, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert compilation.status == "failed; the log says why"


def test_a_process_that_cannot_be_started_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def no_worker() -> Worker:
        raise OSError("cannot allocate memory")

    compilation = BackgroundCompilation([_part(1)], ["tiny"], set, lambda _: None, no_worker)
    compilation.start()
    _wait_for_end(compilation)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_a_compiler_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    caplog.set_level(logging.INFO)
    started: list[Part] = []
    compilation, _ = _background(started.append, started.append)
    compilation.start()
    _wait_for_end(compilation)
    assert started == []
    assert compilation.status == "no C++ compiler"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "install g++" in caplog.text


def test_stopping_ends_the_process_and_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    def make(_: Part) -> None:
        assert worker.ended.wait(WITHIN_S)
        raise CompilationError("the compiling process ended")

    compilation, worker = _background(make, lambda _: None)
    compilation.start()
    deadline = time.monotonic() + WITHIN_S
    while compilation._worker is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    compilation.stop()
    assert not compilation._thread.is_alive()
    assert caplog.records == []
