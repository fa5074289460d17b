"""`lightcone serve`. Owns the flags of serving and how they become a `ServerConfig`; the rest is `server.run`."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.config import ServerConfig
from server.errors import ConfigError

DEFAULT_WORLD = "pong"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the server, and which worlds it serves."""
    parser.add_argument(
        "--world",
        action="append",
        metavar="NAME|PATH",
        help="a world by name or folder; may be repeated, the first is the page's "
        f"(default: {DEFAULT_WORLD}, then every other one that is shipped)",
    )
    add_server_arguments(parser)


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the server itself. Defaults are `ServerConfig`'s."""
    config = ServerConfig()
    parser.add_argument(
        "--host",
        default=config.host,
        help=f"address to listen on; 0.0.0.0 lets other machines in (default: {config.host})",
    )
    parser.add_argument("--port", type=int, default=config.port, help=f"port; 0 picks one (default: {config.port})")
    parser.add_argument(
        "--max-sessions",
        type=int,
        default=config.max_sessions,
        help=f"players at once; further ones wait in a queue (default: {config.max_sessions})",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        default=config.max_batch,
        help=f"players whose steps go together at most (default: {config.max_batch})",
    )
    parser.add_argument(
        "--timeline-frames",
        type=int,
        default=config.timeline_frames,
        help="how far back players can go; each world's state of that time is kept in memory, 0 keeps none "
        f"(default: {config.timeline_frames})",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of the model (default: the machine's choice)")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a page of another host that may connect, such as https://play.example.org; may be repeated",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name this server is reached by, such as play.example.org; addresses and localhost need none",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="who may play: a token a line, of 16 characters or more; without it everybody who reaches the server may",
    )
    parser.add_argument(
        "--max-per-address",
        type=int,
        default=config.max_per_address,
        help="connections that one address may have at once; more of them behind a proxy "
        f"(default: {config.max_per_address})",
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FILE",
        help="keep sessions in this file too (SQLite, made if need be): they outlive the server, and other servers of "
        "the same file can go on with them",
    )
    parser.add_argument(
        "--admit-all",
        action="store_true",
        help="let players in as long as there are slots, even where everybody's world gets slower by that",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve https with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's private key (PEM)")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default=config.log_level,
        help=f"how much to log (default: {config.log_level})",
    )
    parser.add_argument("--log-json", action="store_true", help="log one JSON object per line")
    parser.add_argument(
        "--trace",
        action="store_true",
        help="send OpenTelemetry traces to where OTEL_EXPORTER_OTLP_ENDPOINT says (needs the extra `trace`)",
    )


def config_from(args: argparse.Namespace, names: list[str]) -> ServerConfig:
    """The server's settings from the flags. Raises CheckpointError on a world that is not there, ConfigError on two of
    one name."""
    from world.catalogue import find  # here, since it loads torch

    worlds: dict[str, Path] = {}
    for folder in map(find, names):
        name = folder.resolve().name
        if worlds.setdefault(name, folder) != folder:
            raise ConfigError(f"{worlds[name]} and {folder} are both called {name!r}; rename one of the folders")
    return ServerConfig(
        worlds=worlds,
        host=args.host,
        port=args.port,
        max_sessions=args.max_sessions,
        max_batch=args.max_batch,
        timeline_frames=args.timeline_frames,
        num_threads=args.threads,
        allowed_origins=tuple(args.allow_origin),
        allowed_hosts=tuple(args.allow_host),
        tokens=tokens_in(args.token_file) if args.token_file else (),
        max_per_address=args.max_per_address,
        store=args.store,
        headroom=None if args.admit_all else ServerConfig().headroom,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        log_level=args.log_level,
        log_json=args.log_json,
        trace=args.trace,
    )


def tokens_in(path: Path) -> tuple[str, ...]:
    """The file's lines, but for empty ones. Raises ConfigError where it cannot be read, or has none."""
    try:
        tokens = tuple(filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--token-file {path} cannot be read: {exc}") from exc
    if not tokens:
        raise ConfigError(f"--token-file {path} has no token: write one a line, or leave the flag out")
    return tokens


def shipped_worlds() -> list[str]:
    """What is served where no world is named: the default one, then the others of the repository."""
    from world.catalogue import SHIPPED, worlds  # here, since it loads torch

    others = [name for name, folder in worlds().items() if folder.parent == SHIPPED and name != DEFAULT_WORLD]
    return [DEFAULT_WORLD, *others]


def run(args: argparse.Namespace) -> int:
    """Serves until interrupted."""
    config = config_from(args, args.world or shipped_worlds())
    from server import run as serve  # here, since it loads torch: a wrong flag is answered without waiting for it

    serve(config)
    return 0
