"""The server that many players share: wire protocol, sessions, scheduler, engine and HTTP application.

Owns everything between a socket and a rollout. Does not know how worlds are trained or how clients display them.

The rooms, from the bottom up (a room may import only what stands before it): `errors` · `wire` · `config` ·
`telemetry` · `sessions` · `state` · `admission`, `compilation` · `engine` · `http` · `cli`. To follow an action to its
frame, read `wire.protocol` → `http.connection` → `sessions.session` → `engine.engine` → `engine.decode_pipeline` →
`wire.send_queue`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from server.config import ServerConfig

if TYPE_CHECKING:
    from server.engine.model_runner import WorldLoader

__all__ = ["ServerConfig", "run"]


def run(
    config: ServerConfig,
    worlds: Mapping[str, WorldLoader | Path] | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until interrupted (see `server.http.process.run`).

    The import is late because it loads torch, which a command line that only reads settings does not need.
    """
    from server.http.process import run as run_process

    run_process(config, worlds, on_ready)
