"""Serving a world to many players at once: wire protocol, sessions, scheduler, engine and application.

Owns everything between a socket and a rollout; knows neither how worlds are trained nor how clients show them.

Reading order, as the data flows: `protocol` → `session` → `scheduler` → `engine` → `frames` → `app`.
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
    """Serve until interrupted; see `server.http.process.run`. Imported late, so that reading settings costs nothing."""
    from server.http.process import run as run_process

    run_process(config, worlds, on_ready)
