"""Settings of one server process. Owns the defaults and their limits; reads no files, flags or environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.errors import ConfigError
from server.wire.origin import parse_origin
from server.wire.protocol import Limits

MAX_TOKEN = 1024
TIMEOUTS = ("send_timeout_s", "handshake_timeout_s", "idle_timeout_s")
WEB_DIST = Path(__file__).resolve().parent.parent / "clients" / "web" / "dist"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """Everything that can be set for a server process.

    Worlds and the model
    `worlds`: checkpoint folders by the name that clients use. `max_sessions`: the most players at once, over all
    worlds; up to `queue_limit` more wait in the queue. `max_batch`: the most sessions in one batched step. `buckets`:
    batch sizes to pad steps to, for devices that work best with few shapes; empty for no padding. `num_threads`:
    threads for the model's tensor operations; None leaves the choice to the machine. `headroom`: the share of all
    time that ticks and frames may take, by what they take now, before further players have to wait; the rest is for
    everything that runs beside the server. None admits players as long as there are slots. `compiles`: whether what
    this machine lacks in machine code is compiled in the background while the worlds are played. `timeline_frames`: how
    many frames a session can go back; its latents are kept for that long, with a copy of its K/V cache every 32 chunks,
    if that fits into `session_bytes`. `memory_bytes`: what all sessions may keep beside their slots: their pasts in one
    half, suspended sessions and branches in a quarter each.

    Connections
    `allowed_origins`: pages from other hosts that may connect, such as "https://play.example.org"; "*" turns the check
    off. `allowed_hosts`: this server's own names, such as "play.example.org"; addresses and "localhost" always work.
    `tokens`: if not empty, a client must send one of them in `hello`. `max_per_address`, `max_per_token`: the most
    connections at once; `connections_per_s`: new connections of one address per second on average, after a burst of
    `max_per_address`. `address_budget`: what one address may cost per second, in units of about a tenth of a
    millisecond of the event loop, over all its connections, requests and messages (see `server.http.budgets`).
    `address_share`: the part of the slots, and of the queue, that sessions of one address may have; at least one.
    `handshake_timeout_s`: the time for `hello`, for an HTTP request, or for a TLS handshake. `tls_cert`, `tls_key`: PEM
    files, to serve https. `goodbye_s`: how long clients are warned before a stopping server closes.

    Messages and frames
    `max_messages_per_s`: the most messages one client may send, on average. `max_unacked_chunks`: chunks sent and not
    yet acknowledged before the session's world pauses. `send_timeout_s`: how long sending one message may take before
    the client counts as gone. `idle_timeout_s`: a playing client that sends nothing for this long is disconnected.

    Resuming
    `resume_s`: how long a session is kept after its connection is lost; 0 turns resuming off. `hold_s`: how much of
    that time it keeps its slot; `reload_s`: the same for a page that says that it goes away, since no browser says
    whether a page is closed or reloaded. `max_suspended`: the most sessions kept in memory without a slot. `store`:
    an SQLite file to keep sessions in, which several servers may share; `store_bytes`: the most that the sessions in it
    take. Of all these spaces the sessions of one address may take a quarter.

    Tracing
    `trace`: send OpenTelemetry spans, for every session and for one tick in `trace_every`.
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
    session_bytes: int = 2**29
    memory_bytes: int = 4 * 2**30
    buckets: tuple[int, ...] = ()
    num_threads: int | None = None
    compiles: bool = True
    jpeg_quality: int = 92
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    max_per_address: int = 64
    max_per_token: int = 64
    connections_per_s: float = 1.0
    address_budget: float = 1000.0
    address_share: float = 0.75
    resume_s: float = 3600.0
    hold_s: float = 10.0
    reload_s: float = 2.0
    max_suspended: int = 64
    store: Path | None = None
    store_bytes: int = 4 * 2**30
    idle_timeout_s: float = 600.0
    headroom: float | None = 0.75
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
        for name in (
            "max_sessions",
            "max_unacked_chunks",
            "max_pending_acts",
            "max_batch",
            "max_message_bytes",
            "max_image_bytes",
            "max_image_pixels",
            "max_per_address",
            "max_per_token",
            "max_suspended",
            "session_bytes",
            "memory_bytes",
            "store_bytes",
            "trace_every",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.timeline_frames < 0:
            raise ConfigError(f"timeline_frames is {self.timeline_frames}; it must be 0 or more")
        for name in ("max_messages_per_s", "connections_per_s", "address_budget", *TIMEOUTS):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("resume_s", "hold_s", "reload_s", "goodbye_s", "queue_limit"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 < self.address_share <= 1:
            raise ConfigError(f"address_share is {self.address_share}; it must be above 0 and at most 1")
        if self.headroom is not None and not self.headroom > 0:
            raise ConfigError(
                f"headroom is {self.headroom}; it must be above 0, or None to admit as long as there are slots"
            )
        for origin in self.allowed_origins:
            if origin != "*" and parse_origin(origin) is None:
                raise ConfigError(
                    f"allowed_origins contains {origin!r}; write an origin such as https://play.example.org, or *"
                )
        if any(not 16 <= len(token) <= MAX_TOKEN for token in self.tokens):
            raise ConfigError(f"tokens: every token must have 16 to {MAX_TOKEN} characters, and one does not")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls: give both the certificate and its key, or neither")
        for path in filter(None, (self.tls_cert, self.tls_key)):
            if not path.is_file():
                raise ConfigError(f"tls: {path} does not exist")
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"jpeg_quality is {self.jpeg_quality}; it must be between 1 and 100")
        if self.buckets and (tuple(sorted(set(self.buckets))) != self.buckets or self.buckets[-1] < self.max_batch):
            raise ConfigError(
                f"buckets are {self.buckets}; they must increase and end at max_batch ({self.max_batch}) or above"
            )

    @property
    def limits(self) -> Limits:
        """Return the limits that a client is told in its `welcome`."""
        return Limits(
            max_unacked_chunks=self.max_unacked_chunks,
            max_pending_acts=self.max_pending_acts,
            max_message_bytes=self.max_message_bytes,
            max_image_bytes=self.max_image_bytes,
            timeline_frames=self.timeline_frames,
            session_bytes=self.past_bytes,
        )

    @property
    def past_bytes(self) -> int:
        """The most memory that the past of one session takes."""
        return min(self.session_bytes, self.memory_bytes // 2 // self.max_sessions)

    @property
    def suspended_bytes(self) -> int:
        """The most memory that all suspended sessions take."""
        return self.memory_bytes // 4

    @property
    def branch_bytes(self) -> int:
        """The most memory that all branches take."""
        return self.memory_bytes // 4

    @property
    def max_wire_bytes(self) -> int:
        """The largest WebSocket message that is read, in bytes: a message and a picture, both at their limits."""
        return self.max_message_bytes + self.max_image_bytes
