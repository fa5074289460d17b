"""How a stopping server parts from its clients. Owns what each is sent and when its connection is closed."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future

from server.admission.session_entry import SessionEntry
from server.errors import ServerError
from server.sessions.pacing import NEVER
from server.state.store import Written
from server.wire.protocol import GoAway
from server.wire.send_queue import SendQueue


def say_goodbye(entries: Iterable[SessionEntry], time_left_s: float, error: ServerError, *, suspends: bool) -> None:
    """Tell every client that the server stops. Close its connection with `error`; if the server `suspends` sessions,
    mark those that have begun as lost instead, and close their connections with `end_after` once they are written."""
    for entry in list(entries):
        entry.send_queue.put(GoAway(time_left_s=time_left_s, reason=str(error)))
        life = entry.session.life
        if suspends and life.has_slot and entry.session.has_begun:
            life.lose_connection(-NEVER)
        else:
            entry.send_queue.end(error)


def end_after(written: Future[Written] | None, send_queue: SendQueue, error: ServerError) -> None:
    """Close a connection with `error` once its session is `written`."""
    if written is None:
        send_queue.end(error)
    else:
        written.add_done_callback(lambda _done: send_queue.end(error))
