"""Sessions on disk, in one SQLite file that several server processes may share. Owns the table, who may have a session,
and how long it is kept; knows no tensors (a session is bytes here) and no players.

Writing is atomic and survives a killed process (a write-ahead log). A session's `generation` rises whenever somebody
claims it; who still writes with an older one has lost it to another server, and is told so. Everything happens on a
thread of its own: of several writes of one session that wait, the newest counts.
"""

from __future__ import annotations

import hmac
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
FORGET_EVERY_S = 60.0
LOCK_TIMEOUT_S = 10.0
"""How long to wait for another process that writes."""

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
class Stored:
    """A session as it is kept: `data` is for those who made it to read."""

    key: str
    secret: str
    generation: int
    world: str
    data: Callable[[], bytes]


class Store:
    """`path`: the file, made where it is not there. `ttl_s`: how long a session is kept after it was written last."""

    def __init__(self, path: Path, ttl_s: float) -> None:
        self._path, self._ttl_s = path, ttl_s
        self._work = ThreadPoolExecutor(1, thread_name_prefix="lightcone-store")
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[Stored, Future[bool]]] = {}
        self._forgot_at = 0.0
        self.num_failures = 0
        try:
            self._file = self._work.submit(self._open).result()
        except (OSError, sqlite3.Error) as exc:
            self._work.shutdown()
            raise ConfigError(f"--store {path}: sessions cannot be kept there ({exc}); name another file") from exc

    def put(self, stored: Stored) -> Future[bool]:
        """Write it; `stored.data` is called when its turn has come. False: another server has claimed it meanwhile.
        Where it cannot be written, the log says so, once."""
        with self._lock:
            before = self._waiting.get(stored.key)
            future: Future[bool] = before[1] if before else Future()
            self._waiting[stored.key] = stored, future
        if before is None:
            self._work.submit(self._write, stored.key)
        return future

    def claim(self, key: str, secret: str) -> Future[Stored]:
        """Have a session, as it was written last, under a new generation: any other server loses it. Raises
        UnknownTicketError."""
        return self._work.submit(self._claim, key, secret)

    def drop(self, key: str) -> None:
        """Forget a session for good."""
        self._work.submit(self._execute, "delete from sessions where key = ?", key)

    def close(self) -> None:
        """Finish what is waiting."""
        self._work.submit(self._file.close)
        self._work.shutdown()

    # ---- on the store's thread

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # what people play is nobody else's business
        file = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        file.execute("pragma journal_mode = wal")
        file.execute("pragma synchronous = normal")
        with closing(file.execute("pragma user_version")) as told:
            version = int(told.fetchone()[0])
        if version not in (0, FORMAT):
            raise OSError(f"it has format {version}, this program reads {FORMAT}")
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
            if time.monotonic() > self._forgot_at + FORGET_EVERY_S:
                self._forgot_at = time.monotonic()
                self._execute("delete from sessions where expires_at < ?", time.time())
        except sqlite3.Error as exc:
            self._failed(exc)
            if not future.done():
                future.set_result(True)

    def _claim(self, key: str, secret: str) -> Stored:
        told = self._file.execute(
            "update sessions set generation = generation + 1 where key = ? and expires_at >= ? and secret = ? "
            "returning generation, world, data",
            (key, time.time(), _digest(secret)),
        ).fetchall()
        if not told:
            raise UnknownTicketError("no session of that ticket is kept here, or not any more; say hello without it")
        generation, world, data = told[0]
        return Stored(key, secret, int(generation), str(world), lambda: bytes(data))

    def _execute(self, statement: str, *values: object) -> int:
        return self._file.execute(statement, values).rowcount

    def _failed(self, exc: Exception) -> None:
        self.num_failures += 1
        if self.num_failures == 1:
            logger.error("sessions cannot be written to %s; the game goes on without: %s", self._path, exc)


def same(secret: str, other: str) -> bool:
    """Whether two secrets are one, in a time that tells nothing."""
    return hmac.compare_digest(secret.encode(), other.encode())


def _digest(secret: str) -> bytes:
    """What is kept of a secret: enough to know it again, too little to use it."""
    return sha256(secret.encode()).digest()
