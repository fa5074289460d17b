"""The SQLite file of a store: its table, its format, and deleting the oldest rows. Knows no sessions and no threads."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

FORMAT = 2
"""Of the table. Format 1 had no `owner`."""

MAX_BLOB_BYTES = 10**9
"""SQLite's own limit for one value."""

TABLE = """
create table if not exists sessions (
    key text primary key, generation integer not null, secret blob not null, world text not null,
    owner blob not null, expires_at real not null, data blob not null
) strict
"""
COLUMNS_OF_1 = "key, generation, secret, world, expires_at, data"

DELETE_OLDEST = """
delete from sessions where key in (
    select key from (
        select key, sum(length(data)) over (order by expires_at desc, key) as total from sessions {where}
    ) where total > ?
)
"""
"""Keep the newest rows up to a number of bytes. `length` of a blob does not read it."""


def open_file(path: Path, patience_ms: int) -> sqlite3.Connection:
    """Open or create the file; a table of format 1 is brought to the present one. Raise OSError or sqlite3.Error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # only this user may read what people play
    file = sqlite3.connect(path, isolation_level=None)
    wait_at_most(file, patience_ms)
    file.execute("pragma journal_mode = wal")
    file.execute("pragma synchronous = normal")
    with file:  # one transaction, so that of several servers one changes the format
        file.execute("begin immediate")
        with closing(file.execute("pragma user_version")) as cursor:
            version = int(cursor.fetchone()[0])
        if version not in (0, 1, FORMAT):
            raise OSError(f"the file has format {version}, this program reads {FORMAT}")
        if version == 1:
            file.execute("alter table sessions rename to sessions_1")
        file.execute(TABLE)
        file.execute("create index if not exists by_owner on sessions (owner, expires_at)")
        if version == 1:
            columns = COLUMNS_OF_1.replace("expires_at", "owner, expires_at")
            values = COLUMNS_OF_1.replace("expires_at", "x'', expires_at")
            file.execute(f"insert into sessions ({columns}) select {values} from sessions_1")  # noqa: S608  # constants
            file.execute("drop table sessions_1")
        file.execute(f"pragma user_version = {FORMAT}")
    return file


def wait_at_most(file: sqlite3.Connection, patience_ms: int) -> None:
    """Wait so long for another process that is writing."""
    file.execute(f"pragma busy_timeout = {patience_ms}")


def delete_oldest(file: sqlite3.Connection, max_bytes: int) -> None:
    """Delete the rows that were written longest ago until the others have at most `max_bytes` of data."""
    file.execute(DELETE_OLDEST.format(where=""), (max_bytes,))


def total_bytes(file: sqlite3.Connection) -> int:
    """Return how many bytes of data all rows have."""
    with closing(file.execute("select total(length(data)) from sessions")) as cursor:
        return int(cursor.fetchone()[0])


def delete_oldest_of(file: sqlite3.Connection, owner: bytes, max_bytes: int) -> None:
    """Do the same among the rows of one owner."""
    file.execute(DELETE_OLDEST.format(where="where owner = ?"), (owner, max_bytes))
