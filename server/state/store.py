"""Sessions on disk, in one SQLite file that several server processes may share. Owns who may claim a session, how long
it is kept, and how much space all of them take; knows no tensors (a session is bytes here) and no players.

Writes are atomic and survive a killed process (a write-ahead log). A session's `generation` increases with every claim;
a server that writes with an older generation has lost the session to another server, and learns so. All work is done on
the store's own thread. Of several waiting writes of one session only the newest is done. A file that is full or locked
fails writes and claims, and nothing else: whoever has the session in memory keeps it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import sha256
from pathlib import Path

from server.errors import ConfigError, StoreUnavailableError, UnknownTicketError
from server.state import store_file

logger = logging.getLogger(__name__)

DROP_EVERY_S = 60.0
PATIENCE_MS, PATIENCE_AFTER_FAILURE_MS = 2000, 50
"""How long to wait for another process that is writing; a file that stays locked must not hold up every session."""

MAX_WAITING = 256
"""Sessions whose write may wait; each holds its state in memory."""

MAX_BYTES = 4 * 2**30
SHARE_OF_ADDRESS = 0.25
"""How much of the space the sessions of one address may take."""

UNKNOWN_TICKET = "this server has no session of that ticket, or no longer; say hello without it"

PUT = """
insert into sessions (key, generation, secret, world, owner, expires_at, data) values (?, ?, ?, ?, ?, ?, ?)
on conflict (key) do update set
    generation = excluded.generation, owner = excluded.owner, expires_at = excluded.expires_at, data = excluded.data
where sessions.generation <= excluded.generation and sessions.secret = excluded.secret
"""
CLAIM = """
update sessions set generation = generation + 1 where key = ? and expires_at >= ? and secret = ?
returning generation, world, data
"""


class Written(Enum):
    """How a write ended."""

    DONE = auto()
    CLAIMED = auto()  # not written: another server has claimed the session since
    FAILED = auto()  # not written: the file is full, locked or damaged


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as it is stored; `data` is called on the store's thread, and its bytes mean nothing to the store.

    address: of its player; the sessions of one address share a part of the space.
    """

    key: str
    secret: str
    generation: int
    world: str
    data: Callable[[], bytes]
    address: str = ""


class Store:
    """The stored sessions in one file.

    path: the file, created if missing; ttl_s: how long a session is kept after its last write; max_bytes: the most
    bytes of all sessions, beyond which the oldest are deleted: at once, or within `DROP_EVERY_S` where other servers
    have written them.
    """

    def __init__(self, path: Path, ttl_s: float, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._ttl_s, self._max_bytes = path, ttl_s, max_bytes
        self._work = ThreadPoolExecutor(1, thread_name_prefix="lightcone-store")
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[StoredSession, Future[Written]]] = {}
        self._dropped_at = -DROP_EVERY_S
        self._most_bytes = 0  # in the file, at most: a session that was written again counts twice
        self._is_failing = False
        self.num_failures = 0
        try:
            self._file = self._work.submit(store_file.open_file, path, PATIENCE_MS).result()
        except (OSError, sqlite3.Error) as exc:
            self._work.shutdown()
            raise ConfigError(f"--store {path}: sessions cannot be stored there ({exc}); name another file") from exc

    @property
    def max_session_bytes(self) -> int:
        """Return how large one session can be."""
        return min(int(self._max_bytes * SHARE_OF_ADDRESS), store_file.MAX_BLOB_BYTES)

    def put(self, stored: StoredSession) -> Future[Written]:
        """Write a session. A failing disk is logged once, until it works again."""
        with self._lock:
            replaced = self._waiting.get(stored.key)
            future: Future[Written] = replaced[1] if replaced else Future()
            is_full = replaced is None and len(self._waiting) >= MAX_WAITING
            if not is_full:
                self._waiting[stored.key] = stored, future
        if is_full:
            self._failed(f"{MAX_WAITING} writes are waiting")
            future.set_result(Written.FAILED)
        elif replaced is None:
            self._work.submit(self._write, stored.key)
        return future

    def claim(self, key: str, secret: str) -> Future[StoredSession]:
        """Claim the latest stored state and increment its generation: any other server loses the session. Raise
        UnknownTicketError, or StoreUnavailableError."""
        return self._work.submit(self._claim, key, secret)

    def drop(self, key: str) -> None:
        """Delete a session."""
        self._work.submit(self._drop, key)

    def close(self) -> None:
        """Finish the waiting writes and close the file."""
        self._work.submit(self._file.close)
        self._work.shutdown()

    # ---- on the store's thread

    def _write(self, key: str) -> None:
        with self._lock:
            stored, future = self._waiting.pop(key)
        try:
            store_file.wait_at_most(self._file, PATIENCE_AFTER_FAILURE_MS if self._is_failing else PATIENCE_MS)
            expires_at, owner, data = time.time() + self._ttl_s, _digest(stored.address), stored.data()
            if len(data) > self.max_session_bytes:
                raise ValueError(f"session {key} has {len(data)} bytes, the limit is {self.max_session_bytes}")
            values = (key, stored.generation, _digest(stored.secret), stored.world, owner, expires_at, data)
            is_ours = self._execute(PUT, *values) == 1
            self._succeeded()
            future.set_result(Written.DONE if is_ours else Written.CLAIMED)
        except Exception as exc:  # noqa: BLE001  # whatever is wrong with this session, the others are written
            self._failed(exc)
            future.set_result(Written.FAILED)
            return
        self._make_room(owner, len(data))

    def _make_room(self, owner: bytes, num_bytes: int) -> None:
        """Delete sessions that have expired, and the oldest above the limits. num_bytes: what has just been written.

        All sessions are looked at only if they may be too many, because that takes long for a large file.
        """
        self._most_bytes += num_bytes
        now = time.monotonic()
        try:
            store_file.delete_oldest_of(self._file, owner, int(self._max_bytes * SHARE_OF_ADDRESS))
            if self._most_bytes > self._max_bytes or now >= self._dropped_at + DROP_EVERY_S:
                self._dropped_at = now
                self._execute("delete from sessions where expires_at < ?", time.time())
                store_file.delete_oldest(self._file, self._max_bytes)
                self._most_bytes = store_file.total_bytes(self._file)
        except sqlite3.Error as exc:
            self._failed(exc)

    def _claim(self, key: str, secret: str) -> StoredSession:
        try:
            rows = self._file.execute(CLAIM, (key, time.time(), _digest(secret))).fetchall()
        except sqlite3.Error as exc:
            self._failed(exc)
            raise StoreUnavailableError("stored sessions cannot be read just now; try again later") from exc
        if not rows:
            raise UnknownTicketError(UNKNOWN_TICKET)
        generation, world, data = rows[0]
        return StoredSession(key, secret, int(generation), str(world), lambda: bytes(data))

    def _drop(self, key: str) -> None:
        try:
            self._execute("delete from sessions where key = ?", key)
        except sqlite3.Error as exc:
            self._failed(exc)

    def _execute(self, statement: str, *values: object) -> int:
        return self._file.execute(statement, values).rowcount

    def _failed(self, reason: object) -> None:
        with self._lock:  # `put` fails on the caller's thread
            self.num_failures += 1
            is_new, self._is_failing = not self._is_failing, True
        if is_new:
            logger.error("sessions cannot be written to %s; play continues without it: %s", self._path, reason)

    def _succeeded(self) -> None:
        if self._is_failing:
            self._is_failing = False
            logger.warning("sessions are written to %s again", self._path)


def _digest(text: str) -> bytes:
    """Return what is stored of a secret or an address: enough to recognise it, too little to use it."""
    return sha256(text.encode()).digest()
