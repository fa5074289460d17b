"""Sessions on disk, in one SQLite file that several server processes may share. Owns the table, who may claim a
session, and how long it is kept; knows no tensors (a session is bytes here) and no players.

Writes are atomic and survive a killed process (a write-ahead log). A session's `generation` increases with every claim;
a server that writes with an older generation has lost the session to another server, and learns so. All work is done on
the store's own thread. Of several waiting writes of one session only the newest is done.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from server.errors import ConfigError, UnknownTicketError

logger = logging.getLogger(__name__)

FORMAT = 1
DROP_EVERY_S = 60.0
LOCK_TIMEOUT_S = 10.0
"""How long to wait for another process that is writing."""

UNKNOWN_TICKET = "this server has no session of that ticket, or no longer; say hello without it"

TABLE = """
create table if not exists sessions (
    key text primary key, generation integer not null, secret blob not null, world text not null,
    expires_at real not null, data blob not null
) strict
"""
PUT = """
insert into sessions (key, generation, secret, world, expires_at, data) values (?, ?, ?, ?, ?, ?)
on conflict (key) do update set generation = excluded.generation, expires_at = excluded.expires_at, data = excluded.data
where sessions.generation <= excluded.generation and sessions.secret = excluded.secret
"""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as it is stored; `data` is called on the store's thread, and its bytes mean nothing to the store."""

    key: str
    secret: str
    generation: int
    world: str
    data: Callable[[], bytes]


class Store:
    """The stored sessions in one file.

    path: the file, created if missing; ttl_s: how long a session is kept after its last write.
    """

    def __init__(self, path: Path, ttl_s: float) -> None:
        self._path, self._ttl_s = path, ttl_s
        self._work = ThreadPoolExecutor(1, thread_name_prefix="lightcone-store")
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[StoredSession, Future[bool]]] = {}
        self._dropped_at = 0.0
        self.num_failures = 0
        try:
            self._file = self._work.submit(self._open).result()
        except (OSError, sqlite3.Error) as exc:
            self._work.shutdown()
            raise ConfigError(f"--store {path}: sessions cannot be stored there ({exc}); name another file") from exc

    def put(self, stored: StoredSession) -> Future[bool]:
        """Write a session. The result is False if another server has claimed it meanwhile.

        A failing disk is logged once, and counts as written.
        """
        with self._lock:
            replaced = self._waiting.get(stored.key)
            future: Future[bool] = replaced[1] if replaced else Future()
            self._waiting[stored.key] = stored, future
        if replaced is None:
            self._work.submit(self._write, stored.key)
        return future

    def claim(self, key: str, secret: str) -> Future[StoredSession]:
        """Claim the latest stored state and increment its generation: any other server loses the session. Raise
        UnknownTicketError."""
        return self._work.submit(self._claim, key, secret)

    def drop(self, key: str) -> None:
        """Delete a session."""
        self._work.submit(self._execute, "delete from sessions where key = ?", key)

    def close(self) -> None:
        """Finish the waiting writes and close the file."""
        self._work.submit(self._file.close)
        self._work.shutdown()

    # ---- on the store's thread

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # only this user may read what people play
        file = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        file.execute("pragma journal_mode = wal")
        file.execute("pragma synchronous = normal")
        with closing(file.execute("pragma user_version")) as cursor:
            version = int(cursor.fetchone()[0])
        if version not in (0, FORMAT):
            raise OSError(f"the file has format {version}, this program reads {FORMAT}")
        file.execute(f"pragma user_version = {FORMAT}")
        file.execute(TABLE)
        return file

    def _write(self, key: str) -> None:
        with self._lock:
            stored, future = self._waiting.pop(key)
        expires_at = time.time() + self._ttl_s
        try:
            values = (key, stored.generation, _digest(stored.secret), stored.world, expires_at, stored.data())
            future.set_result(self._execute(PUT, *values) == 1)
            if time.monotonic() > self._dropped_at + DROP_EVERY_S:
                self._dropped_at = time.monotonic()
                self._execute("delete from sessions where expires_at < ?", time.time())
        except sqlite3.Error as exc:
            self._failed(exc)
            if not future.done():
                future.set_result(True)

    def _claim(self, key: str, secret: str) -> StoredSession:
        rows = self._file.execute(
            "update sessions set generation = generation + 1 where key = ? and expires_at >= ? and secret = ? "
            "returning generation, world, data",
            (key, time.time(), _digest(secret)),
        ).fetchall()
        if not rows:
            raise UnknownTicketError(UNKNOWN_TICKET)
        generation, world, data = rows[0]
        return StoredSession(key, secret, int(generation), str(world), lambda: bytes(data))

    def _execute(self, statement: str, *values: object) -> int:
        return self._file.execute(statement, values).rowcount

    def _failed(self, exc: Exception) -> None:
        self.num_failures += 1
        if self.num_failures == 1:
            logger.error("sessions cannot be written to %s; play continues without it: %s", self._path, exc)


def _digest(secret: str) -> bytes:
    """Return what is stored of a secret: enough to recognise it, too little to use it."""
    return sha256(secret.encode()).digest()
