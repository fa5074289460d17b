"""The engine's lock: it knows its owner, and what relies on it fails without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from server.admission.session_entry import Client
from server.config import ServerConfig
from server.engine.engine import Engine
from server.errors import ShuttingDownError
from server.sessions.branches import BranchRegistry
from server.sessions.lock import EngineLock
from server.state.tickets import Ticket
from server.wire.send_queue import SendQueue
from tests.server.raw import hello


def test_only_the_thread_that_holds_it_passes_the_assertion() -> None:
    lock, failures = EngineLock(), []

    def other() -> None:
        try:
            lock.assert_held()
        except AssertionError as error:
            failures.append(error)

    with pytest.raises(AssertionError, match="with lock"):
        lock.assert_held()
    with lock:
        lock.assert_held()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with lock:
            lock.assert_held()
        lock.assert_held()  # reentrant: the inner exit has not released it
    assert len(failures) == 1
    with pytest.raises(AssertionError):
        lock.assert_held()


def test_a_waiting_thread_releases_the_lock_and_owns_it_again_when_notified() -> None:
    lock, steps = EngineLock(), []

    def waiter() -> None:
        with lock, lock:
            steps.append("waits")
            assert lock.wait(20)
            lock.assert_held()
            steps.append("woke")

    thread = threading.Thread(target=waiter)
    thread.start()
    while True:
        with lock:
            if steps:
                lock.notify()
                steps.append("notified")
                break
        time.sleep(0.001)
    thread.join()
    assert steps == ["waits", "notified", "woke"]
    with lock:
        assert not lock.wait(0.001), "nobody notifies"


@pytest.mark.parametrize("method", ["wait", "notify", "notify_all"])
def test_without_the_lock_nobody_waits_or_notifies(method: str) -> None:
    with pytest.raises(AssertionError):
        getattr(EngineLock(), method)()


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An engine without worlds; its threads do not run."""
    return Engine(ServerConfig(max_sessions=1, num_threads=1), {})


def calls(engine: Engine) -> dict[str, Callable[[], object]]:
    """Everything that relies on the lock."""
    registry, jobs, suspended = engine._registry, engine._slot_jobs, engine._registry.suspended_sessions
    queue, ticket = SendQueue(lambda: None), Ticket("k", "s")
    client = Client(queue, lambda: None)
    error = ShuttingDownError("x")
    branches = BranchRegistry(engine._lock, 1000)
    return {
        "join": partial(registry.join, "k", hello(), None, client),
        "resume": partial(registry.resume, ticket, hello(), 0, None, client),
        "lose": partial(registry.lose, "k", queue),
        "leave": partial(registry.leave, "k", queue),
        "maintain": partial(registry.maintain, 0.0),
        "close": partial(registry.close, error),
        "say_goodbye": partial(registry.say_goodbye, 0.0, error),
        "fail_all": partial(registry.fail_all, error),
        "with_slot": registry.with_slot,
        "entries": lambda: registry.entries,
        "freed_slots": lambda: registry.freed_slots,
        "counts": registry.counts,
        "due_at": jobs.due_at,
        "branch": branches.expires_at,
        "drop_expired": partial(suspended.drop_expired, 0.0),
        "take": partial(suspended.take, ticket, None, 0.0),
        "num_suspended": lambda: len(suspended),
    }


@pytest.mark.parametrize("name", list(calls(Engine(ServerConfig(max_sessions=1), {}))))
def test_what_relies_on_the_lock_fails_without_it(engine: Engine, name: str) -> None:
    with pytest.raises(AssertionError, match="lock is not held"):
        calls(engine)[name]()
