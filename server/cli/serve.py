"""`lightcone serve`. Owns how flags become a `ServerConfig`; `server.http.process` does the serving."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.cli.arguments import DEFAULT_WORLD
from server.config import ServerConfig
from server.errors import ConfigError
from server.http.process import run as serve
from world import catalogue
from world.catalogue import find
from world.numbers import checked


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; return the exit code."""
    serve(config_from(args, args.world or shipped_worlds()))
    return 0


def config_from(args: argparse.Namespace, names: list[str]) -> ServerConfig:
    """Return the settings that the flags ask for, serving the worlds `names`.

    Raises CheckpointError for a world that does not exist, ConfigError for two worlds of one name, and RangeError for a
    size that is no number.
    """
    folders: dict[str, Path] = {}
    for folder in map(find, names):
        name = folder.resolve().name
        if folders.setdefault(name, folder) != folder:
            raise ConfigError(f"{folders[name]} and {folder} are both called {name!r}; rename one of the folders")
    return ServerConfig(
        worlds=folders,
        host=args.host,
        port=args.port,
        max_sessions=args.max_sessions,
        max_batch=args.max_batch,
        timeline_frames=args.timeline_frames,
        session_bytes=_bytes("--session-memory", args.session_memory),
        memory_bytes=_bytes("--memory", args.memory),
        store_bytes=_bytes("--store-size", args.store_size),
        num_threads=args.threads,
        compiles=args.compile,
        allowed_origins=tuple(args.allow_origin),
        allowed_hosts=tuple(args.allow_host),
        tokens=tokens_in(args.token_file) if args.token_file else (),
        max_per_address=args.max_per_address,
        address_share=args.address_share,
        address_budget=args.address_budget,
        store=args.store,
        headroom=None if args.admit_all else ServerConfig().headroom,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        log_level=args.log_level,
        log_json=args.log_json,
        trace=args.trace,
    )


def _bytes(flag: str, gib: float) -> int:
    return round(checked(gib, flag, 0.0) * 2**30)


def tokens_in(path: Path) -> tuple[str, ...]:
    """Return the file's lines without empty ones and comments (`# …`). Raises ConfigError if it cannot be read or holds
    no token."""
    try:
        lines = map(str.strip, path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--token-file {path} cannot be read: {exc}") from exc
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens:
        raise ConfigError(f"--token-file {path} has no token: write one per line, or leave the flag out")
    return tokens


def shipped_worlds() -> list[str]:
    """Return the worlds served by default: the default world, then the others in the repository."""
    others = [
        name
        for name, folder in catalogue.worlds().items()
        if folder.parent == catalogue.SHIPPED and name != DEFAULT_WORLD
    ]
    return [DEFAULT_WORLD, *others]
