"""`lightcone play`. Owns opening the browser once the world is warm; the rest is `lightcone serve`."""

from __future__ import annotations

import argparse
import threading
import webbrowser

from server.cli.serve import config_from
from server.http.process import run as serve


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted, and open the page in the browser as soon as the world is warm."""
    serve(config_from(args, [args.world]), on_ready=open_browser)
    return 0


def open_browser(url: str) -> None:
    """Print the address and open it, in a thread of its own since some browsers return only when they are closed."""
    print(f"Lightcone is ready: {url}", flush=True)
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
