"""Play the worlds of a Lightcone server from Python: `connect` with asyncio, `play` without it."""

from lightcone_client.client import connect
from lightcone_client.errors import (
    ActionError,
    ConnectionFailedError,
    ConnectionLostError,
    LightconeClientError,
    ProtocolError,
    RefusedError,
    UsageError,
)
from lightcone_client.messages import (
    ActionLog,
    Forked,
    Frame,
    LoggedInput,
    Queued,
    Receipt,
    Timings,
    Welcome,
    WorldInfo,
)
from lightcone_client.session import Session
from lightcone_client.sync import SyncSession, play

__all__ = [
    "ActionError",
    "ActionLog",
    "ConnectionFailedError",
    "ConnectionLostError",
    "Forked",
    "Frame",
    "LightconeClientError",
    "LoggedInput",
    "ProtocolError",
    "Queued",
    "Receipt",
    "RefusedError",
    "Session",
    "SyncSession",
    "Timings",
    "UsageError",
    "Welcome",
    "WorldInfo",
    "connect",
    "play",
]
