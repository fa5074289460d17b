"""`lightcone play`. Owns opening the browser once the server is ready; all else is `lightcone serve`."""

from __future__ import annotations

import argparse
import socket
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from dataclasses import replace

from server.command_serve import DEFAULT_WORLD, add_server_arguments, config_from

READY_TIMEOUT_S = 120.0
POLL_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The world to play, and the server's flags."""
    parser.add_argument("world", nargs="?", default=DEFAULT_WORLD, help=f"name or folder (default: {DEFAULT_WORLD})")
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serves until interrupted; opens the page in the browser as soon as the world is warm."""
    config = config_from(args, [args.world])
    from server import run as serve  # here, since it loads torch

    if config.port == 0:
        config = replace(config, port=free_port(config.host))
    url = f"http://{'127.0.0.1' if config.host == '0.0.0.0' else config.host}:{config.port}"  # noqa: S104  # compared
    threading.Thread(target=open_when_ready, args=(url,), daemon=True).start()
    serve(config)
    return 0


def free_port(host: str) -> int:
    """A port nobody listens on right now."""
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def open_when_ready(url: str, timeout_s: float = READY_TIMEOUT_S) -> bool:
    """Opens `url` in the browser once its /readyz answers 200; False if that does not happen in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if is_ready(url):
            return webbrowser.open(url)
        time.sleep(POLL_S)
    return False


def is_ready(url: str) -> bool:
    """Whether the server at `url` says that it is warm."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=1.0) as reply:  # noqa: S310  # our own http address
            return bool(reply.status == 200)
    except (urllib.error.URLError, TimeoutError):
        return False
