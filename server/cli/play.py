"""`lightcone play`. Owns opening the browser once the world is warm; all else is `lightcone serve`."""

from __future__ import annotations

import argparse
import threading
import webbrowser

from server.cli.serve import DEFAULT_WORLD, add_server_arguments, config_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The world to play, and the server's flags."""
    parser.add_argument("world", nargs="?", default=DEFAULT_WORLD, help=f"name or folder (default: {DEFAULT_WORLD})")
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serves until interrupted; opens the page in the browser as soon as the world is warm."""
    config = config_from(args, [args.world])
    from server import run as serve  # here, since it loads torch

    serve(config, on_ready=open_browser)
    return 0


def open_browser(url: str) -> None:
    """Prints the address and opens it. In a thread of its own: some browsers return only when they are closed."""
    print(f"Lightcone is ready: {url}", flush=True)
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
