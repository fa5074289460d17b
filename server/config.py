"""Settings of one server process. Owns defaults and their limits; reads no files, flags or environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.errors import ConfigError
from server.wire.origin import place_of
from server.wire.protocol import Limits

MAX_TOKEN = 1024
TIMEOUTS = ("send_timeout_s", "handshake_timeout_s", "idle_timeout_s")
WEB_DIST = Path(__file__).resolve().parent.parent / "clients" / "web" / "dist"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """What a server process is told at its start.

    `worlds`: checkpoint folders by the name clients ask for. `max_sessions`: players at once, over all worlds; up to
    `queue_limit` more wait. `max_unacked_chunks`: chunks sent and not yet acknowledged before a session's world waits
    for its player. `buckets`: batch sizes to pad ticks to, for devices that want few shapes; empty for none.
    `allowed_origins`: pages of other hosts that may connect, such as "https://play.example.org"; "*" lifts the check.
    `allowed_hosts`: names of this server itself, such as "play.example.org"; addresses and "localhost" need none.
    `max_messages_per_s`: what one client may send on average. `send_timeout_s`: how long one message may take to leave
    before its client counts as gone.
    `timeline_frames`: how far back a session can go; kept are its latents, and a copy of its cache every 32 chunks.
    `tokens`: who may play has one of these, in `hello`; empty lets everybody in. `max_per_address`, `max_per_token`:
    connections at once; `connections_per_s`: new ones of an address on average, after `max_per_address` at once.
    `resume_s`: how long a session is kept for a player whose connection is gone, 0 for not at all; `hold_s`: how long
    of that in its slot; `max_suspended`: how many in memory without one; `store`: a file (SQLite) to keep them in, which
    other servers may share. `idle_timeout_s`: after how long a player of whom nothing is heard must make room.
    `headroom`: the share of its time that the model may be busy, as it was measured at the start, before further
    players wait; the rest is for all that runs beside it. None lets them in as long as there are slots.
    `tls_cert`, `tls_key`: files (PEM) to serve https with.
    `trace`: send OpenTelemetry spans, of every session and of one tick in `trace_every`.
    `num_threads`: threads of the model's tensor operations; None leaves the choice to the machine.
    """

    worlds: Mapping[str, Path] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 8000
    web_dist: Path = WEB_DIST
    max_sessions: int = 8
    queue_limit: int = 32
    max_unacked_chunks: int = 3
    max_pending_acts: int = 64
    max_batch: int = 8
    timeline_frames: int = 600
    buckets: tuple[int, ...] = ()
    num_threads: int | None = None
    jpeg_quality: int = 92
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    max_per_address: int = 64
    max_per_token: int = 64
    connections_per_s: float = 1.0
    resume_s: float = 3600.0
    hold_s: float = 10.0
    max_suspended: int = 64
    store: Path | None = None
    idle_timeout_s: float = 600.0
    headroom: float | None = 0.65
    tls_cert: Path | None = None
    tls_key: Path | None = None
    handshake_timeout_s: float = 10.0
    max_message_bytes: int = 256 * 1024
    max_image_bytes: int = 1024 * 1024
    max_image_pixels: int = 2048 * 2048
    max_messages_per_s: float = 500.0
    send_timeout_s: float = 10.0
    goodbye_s: float = 0.2
    log_level: str = "info"
    log_json: bool = False
    trace: bool = False
    trace_every: int = 30

    def __post_init__(self) -> None:
        counts = ("max_sessions", "max_unacked_chunks", "max_pending_acts", "max_batch", "max_image_bytes")
        for name in (*counts, "max_per_address", "max_per_token", "max_suspended", "trace_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.timeline_frames < 0:
            raise ConfigError(f"timeline_frames is {self.timeline_frames}; it must be 0 or more")
        for name in ("max_messages_per_s", "connections_per_s", *TIMEOUTS):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("resume_s", "hold_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if self.headroom is not None and not self.headroom > 0:
            raise ConfigError(f"headroom is {self.headroom}; it must be above 0, or None to admit by slots alone")
        for origin in self.allowed_origins:
            if origin != "*" and place_of(origin) is None:
                raise ConfigError(f"allowed_origins has {origin!r}; write it as in https://play.example.org, or *")
        if any(not 16 <= len(token) <= MAX_TOKEN for token in self.tokens):
            raise ConfigError(f"tokens: one has fewer than 16 characters or more than {MAX_TOKEN}; make longer ones")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls: give both the certificate and its key, or neither")
        for path in filter(None, (self.tls_cert, self.tls_key)):
            if not path.is_file():
                raise ConfigError(f"tls: {path} is not there")
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"jpeg_quality is {self.jpeg_quality}; it must be between 1 and 100")
        if self.buckets and (tuple(sorted(set(self.buckets))) != self.buckets or self.buckets[-1] < self.max_batch):
            raise ConfigError(
                f"buckets are {self.buckets}; they must rise and end at max_batch {self.max_batch} or above"
            )

    @property
    def limits(self) -> Limits:
        """What a session's client is told of them."""
        return Limits(
            max_unacked_chunks=self.max_unacked_chunks,
            max_pending_acts=self.max_pending_acts,
            max_message_bytes=self.max_message_bytes,
            max_image_bytes=self.max_image_bytes,
            timeline_frames=self.timeline_frames,
        )

    @property
    def max_wire_bytes(self) -> int:
        """The largest WebSocket message that is read at all: a picture within its limit and what surrounds it."""
        return self.max_message_bytes + self.max_image_bytes
