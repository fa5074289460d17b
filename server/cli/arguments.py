"""The arguments of `lightcone serve`, `play` and `worlds`. Owns flags, defaults and help; loads no torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from server.config import ServerConfig

DEFAULT_WORLD = "pong"


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the worlds to serve and the server's flags."""
    parser.add_argument(
        "--world",
        action="append",
        metavar="NAME|PATH",
        help="a world by name or folder; may be repeated, the page opens the first "
        f"(default: {DEFAULT_WORLD}, then every other shipped world)",
    )
    _add_server_arguments(parser)


def add_play_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the world to play and the server's flags."""
    parser.add_argument("world", nargs="?", default=DEFAULT_WORLD, help=f"name or folder (default: {DEFAULT_WORLD})")
    _add_server_arguments(parser)


def add_worlds_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the listing."""
    parser.add_argument("--json", action="store_true", help="print an array of the worlds' cards, each with its path")


def _add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the server's flags; the defaults are those of `ServerConfig`."""
    config = ServerConfig()
    _add_address_arguments(parser, config)
    _add_capacity_arguments(parser, config)
    _add_access_arguments(parser, config)
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
        help="send OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT (needs the extra `trace`)",
    )


def _add_address_arguments(parser: argparse.ArgumentParser, config: ServerConfig) -> None:
    parser.add_argument(
        "--host",
        default=config.host,
        help=f"address to listen on; 0.0.0.0 lets other machines connect (default: {config.host})",
    )
    parser.add_argument("--port", type=int, default=config.port, help=f"port; 0 picks one (default: {config.port})")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve https with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's private key (PEM)")


def _add_capacity_arguments(parser: argparse.ArgumentParser, config: ServerConfig) -> None:
    parser.add_argument(
        "--max-sessions",
        type=int,
        default=config.max_sessions,
        help=f"players at the same time; others wait in a queue (default: {config.max_sessions})",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        default=config.max_batch,
        help=f"players stepped together in one batch, at most (default: {config.max_batch})",
    )
    parser.add_argument(
        "--timeline-frames",
        type=int,
        default=config.timeline_frames,
        help="frames that players can go back if --session-memory suffices; 0 keeps none "
        f"(default: {config.timeline_frames})",
    )
    for flag, default, what in (
        (
            "--session-memory",
            config.session_bytes,
            "memory for the past of one session; decides how far it can go back",
        ),
        ("--memory", config.memory_bytes, "memory for the pasts of all sessions, suspended sessions and branches"),
        ("--store-size", config.store_bytes, "what the sessions in --store may take; the oldest are deleted"),
    ):
        gib = default / 2**30
        parser.add_argument(flag, type=float, metavar="GIB", default=gib, help=f"{what} (default: {gib:g} GiB)")
    parser.add_argument("--threads", type=int, help="CPU threads of the model, always (default: what is fastest now)")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=config.compiles,
        help="compile faster code for this CPU in the background, once, while worlds are played (default: yes)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="FILE",
        help="also keep sessions in this SQLite file (created if missing): they survive the server, and other servers "
        "with the same file can continue them",
    )
    parser.add_argument(
        "--admit-all",
        action="store_true",
        help="admit players while there are slots, even if every world then runs slower than real time",
    )


def _add_access_arguments(parser: argparse.ArgumentParser, config: ServerConfig) -> None:
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
        help="a name of this server, such as play.example.org; addresses and localhost need no flag",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with one token per line, of 16 characters or more, and comments (# ...); players must present "
        "one of them (default: everyone who reaches the server may play)",
    )
    parser.add_argument(
        "--max-per-address",
        type=int,
        default=config.max_per_address,
        help="open connections per address; raise it behind a proxy, where all players share one address "
        f"(default: {config.max_per_address})",
    )
    parser.add_argument(
        "--address-share",
        type=float,
        default=config.address_share,
        metavar="PART",
        help="part of the slots and of the queue that one address may have; 1 lets it have all "
        f"(default: {config.address_share:g})",
    )
    parser.add_argument(
        "--address-budget",
        type=float,
        default=config.address_budget,
        metavar="UNITS",
        help="what one address may cost per second, in units of about 0.1 ms; raise it where many players share one "
        f"(default: {config.address_budget:g})",
    )
