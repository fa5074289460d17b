"""A session driven by hand: no server, clock or thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from server.sessions.chunk import ChunkTicket
from server.sessions.run import ForkRequest, RunRequest, StartRequest
from server.sessions.session import Session
from server.wire.protocol import (
    Ack,
    ButtonInfo,
    Receipt,
    ServerMessage,
    WorldInfo,
)

if TYPE_CHECKING:
    from world import RolloutState

WORLD = WorldInfo(
    name="w",
    title="W",
    description="",
    fps=10.0,
    height=8,
    width=8,
    buttons=(ButtonInfo(name="up", label="Up", keys=()),),
    axes=(),
    exclusive_buttons=False,
    chunk_frames=2,
    starts=("a", "b"),
    data_license="CC0-1.0",
)
NO_STATE = cast("RolloutState", None)  # a session only passes the state on


def new_session(
    pacing: str = "realtime", *, receipts: bool = False, started: bool = True, timeline_frames: int = 600
) -> Session:
    session = Session(
        "k",
        WORLD,
        2,
        encoding="png",
        jpeg_quality=90,
        pacing="lockstep" if pacing == "lockstep" else "realtime",
        receipts=receipts,
        max_unacked=3,
        max_pending_acts=4,
        timeline_frames=timeline_frames,
    )
    session.life.admit(0)
    session.request_start(StartRequest(), 0.0)
    if started:
        begin_run(session, 0.0)
        session.receive(Ack(frame=0), 0.0)
    return session


def begin_run(session: Session, now: float) -> tuple[RunRequest, ChunkTicket, list[ServerMessage]]:
    """Begin a run and fill the slot at once."""
    begun = session.begin_run(now)
    session.life.filled()
    return begun


def begin_fork(session: Session, now: float) -> tuple[ForkRequest, list[ServerMessage]]:
    """Begin a fork and copy the slot at once."""
    begun = session.begin_fork(now)
    if not begun[1]:
        session.life.copied()
    return begun


def ready(session: Session, now: float) -> bool:
    return session.view().runnable_at <= now


def receipts(messages: list[ServerMessage]) -> list[tuple[str, int, str, int | None]]:
    return [(m.about, m.seq, m.status, m.frame) for m in messages if isinstance(m, Receipt)]
