"""How much space sessions without a slot take, in memory and on disk: by address and in all, the oldest go first."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from server.sessions.lock import EngineLock
from server.state import store_file
from server.state.store import DROP_EVERY_S, MAX_WAITING, Store, StoredSession, Written
from server.state.stored_session import SuspendedSession
from server.state.suspended_sessions import CLAIM_S, IN_MEMORY_S, RETRY_S, SuspendedSessions
from server.state.tickets import Ticket
from tests.server.sessions.driving import new_session
from world import RolloutState

KIB = 1024


def stored(key: str, num_bytes: int, address: str) -> StoredSession:
    return StoredSession(key, "s", 0, "tiny", lambda: bytes(num_bytes), address)


def suspended(key: str, num_bytes: int, address: str) -> SuspendedSession:
    empty = torch.zeros(0, 1, 1, 1)
    kv = (torch.zeros(num_bytes // 8), torch.zeros(num_bytes // 8))
    state = RolloutState(0, 1, 1, empty, empty.flatten(1), (), {}, kv)
    return SuspendedSession(new_session(), Ticket(key, "s"), state, [], address)


def keys_in(path: Path) -> list[str]:
    with sqlite3.connect(path) as file:
        return [str(key) for (key,) in file.execute("select key from sessions order by expires_at, rowid")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "s.db", ttl_s=100.0, max_bytes=400 * KIB)
    yield made
    made.close()


def test_one_address_fills_its_share_of_the_store_and_no_more(store: Store, tmp_path: Path) -> None:
    store.put(stored("other", 60 * KIB, "b")).result()
    for number in range(8):
        assert store.put(stored(f"a{number}", 30 * KIB, "a")).result() is Written.DONE
    store._work.submit(lambda: None).result()
    assert keys_in(tmp_path / "s.db") == ["other", "a5", "a6", "a7"], "100 KiB for each address"


def test_all_addresses_together_fill_the_store_and_no_more(store: Store, tmp_path: Path) -> None:
    for number in range(12):
        store.put(stored(f"k{number:02}", 90 * KIB, f"address {number}")).result()
    store._work.submit(lambda: None).result()
    assert keys_in(tmp_path / "s.db") == ["k08", "k09", "k10", "k11"]


def test_all_rows_are_looked_at_only_when_they_may_be_too_many(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    real = store_file.delete_oldest

    def delete_oldest(file: sqlite3.Connection, max_bytes: int) -> None:
        looked.append(written)
        real(file, max_bytes)

    monkeypatch.setattr(store_file, "delete_oldest", delete_oldest)
    for written in range(12):
        store.put(stored(f"k{written % 2}", 50 * KIB, f"address {written % 2}")).result()
        store._work.submit(lambda: None).result()
    assert looked == [0, 8], "at first, and when 9 × 50 KiB were written; two sessions have 100 KiB"
    with sqlite3.connect(tmp_path / "s.db") as other:
        other.execute("update sessions set data = zeroblob(?) where key = 'k0'", (390 * KIB,))
    monkeypatch.setattr(store, "_dropped_at", -DROP_EVERY_S)
    store.put(stored("k1", 50 * KIB, "address 1")).result()
    store._work.submit(lambda: None).result()
    assert keys_in(tmp_path / "s.db") == ["k1"], "what another server has written is found in the end"


def test_a_session_that_is_larger_than_a_share_is_not_written(store: Store) -> None:
    assert store.put(stored("k", 101 * KIB, "a")).result() is Written.FAILED
    assert store.put(stored("l", 99 * KIB, "a")).result() is Written.DONE


def test_few_writes_wait_for_a_store_that_does_not_answer(store: Store) -> None:
    may_write = threading.Event()
    store._work.submit(may_write.wait, 20)
    futures = [store.put(stored(f"k{number}", 1, "a")) for number in range(MAX_WAITING + 3)]
    assert [future.done() for future in futures].count(True) == 3
    may_write.set()
    assert [future.result() for future in futures].count(Written.FAILED) == 3


def test_a_file_of_the_format_before_keeps_its_sessions(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s.db") as file:
        file.execute(store_file.TABLE.replace("owner blob not null, ", ""))
        file.execute("insert into sessions values ('k', 4, x'00', 'tiny', 2e9, x'0102')")
        file.execute("pragma user_version = 1")
    for _ in range(2):
        Store(tmp_path / "s.db", ttl_s=1.0).close()
    with sqlite3.connect(tmp_path / "s.db") as file:
        (row,) = file.execute("select key, generation, owner, expires_at, data from sessions").fetchall()
    assert row == ("k", 4, b"", 2e9, b"\x01\x02")


# ---- in memory


def in_memory(store: Store | None, **limits: int) -> tuple[SuspendedSessions, EngineLock]:
    lock = EngineLock()
    return SuspendedSessions(store, lock, ttl_s=3600.0, **{"max_suspended": 64, "max_bytes": 400 * KIB, **limits}), lock


def test_memory_is_shared_between_addresses_and_the_oldest_are_dropped() -> None:
    sessions, lock = in_memory(None)
    with lock:
        sessions.put(suspended("other", 60 * KIB, "b"), "f", 0.0)
        for number in range(8):
            sessions.put(suspended(f"a{number}", 30 * KIB, "a"), "f", 1.0 + number)
        assert list(sessions._in_memory) == ["other", "a5", "a6", "a7"]
        for number in range(12):
            sessions.put(suspended(f"c{number}", 90 * KIB, f"address {number}"), "f", 20.0)
        assert list(sessions._in_memory) == ["c8", "c9", "c10", "c11"]


def test_a_session_that_is_too_large_is_kept_without_its_kv() -> None:
    sessions, lock = in_memory(None)
    with lock:
        sessions.put(suspended("k", 101 * KIB, "a"), "f", 0.0)
        kept = sessions.take(Ticket("k", "s"), None, 1.0)
    assert kept is not None
    assert not kept.exact


def test_what_could_not_be_written_stays_in_memory_for_its_hour_and_is_written_again(store: Store) -> None:
    sessions, lock = in_memory(store)
    store._work.submit(store._execute, "alter table sessions rename to broken").result()
    with lock:
        written = sessions.put(suspended("k", KIB, "a"), "f", 0.0)
        assert written is not None
        assert written.result() is Written.FAILED
        sessions.drop_expired(IN_MEMORY_S + 1)
        store._work.submit(lambda: None).result()
        assert len(sessions) == 1
        assert sessions.expires_at() == IN_MEMORY_S + 1 + RETRY_S, "then it is tried again"
    store._work.submit(store._execute, "alter table broken rename to sessions").result()
    with lock:
        sessions.drop_expired(IN_MEMORY_S + 1 + RETRY_S)
        store._work.submit(lambda: None).result()
        assert len(sessions) == 1
        assert sessions._in_memory["k"].written is not None
        assert sessions._in_memory["k"].written.result() is Written.DONE
        sessions.drop_expired(IN_MEMORY_S + 2 + RETRY_S)
        assert len(sessions) == 0


def test_without_a_store_that_works_the_number_in_memory_is_bounded_all_the_same(store: Store) -> None:
    sessions, lock = in_memory(store, max_suspended=2)
    store._work.submit(store._execute, "drop table sessions").result()
    with lock:
        for number in range(5):
            written = sessions.put(suspended(f"k{number}", KIB, "a"), "f", 0.0)
            assert written is not None
            written.result()
        sessions.drop_expired(1.0)
        assert list(sessions._in_memory) == ["k3", "k4"]


def test_a_session_that_was_claimed_meanwhile_is_kept_for_a_while_in_case_it_was_by_this_server(
    store: Store, tmp_path: Path
) -> None:
    sessions, lock = in_memory(store, max_suspended=1)
    other = Store(tmp_path / "s.db", ttl_s=100.0)
    with lock:
        for key in ("k", "l"):
            first = sessions.put(suspended(key, KIB, "a"), "f", 0.0)
            assert first is not None
            first.result()
            other.claim(key, "s").result()
            late = sessions.put(suspended(key, KIB, "a"), "f", 1.0)
            assert late is not None
            assert late.result() is Written.CLAIMED
        sessions.drop_expired(2.0)
        assert list(sessions._in_memory) == ["k", "l"]
        sessions.drop_expired(2.0 + CLAIM_S)
        assert list(sessions._in_memory) == ["l"]
        sessions.drop_expired(2.0 + IN_MEMORY_S)
        assert len(sessions) == 0
    other.close()
