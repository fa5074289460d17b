"""A server process with small random worlds. Owns the process and its folder; knows no browser."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 120.0


class ServerProcess:
    """`lightcone serve` on a free loopback port; `kill` and `start` keep the port, so that clients can reconnect.

    `worlds`: one with one picture per step, then one with twelve.
    """

    worlds = ("tiny-pixel", "tiny-wan")

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        self.process: subprocess.Popen[bytes] | None = None
        self.folder = tempfile.TemporaryDirectory(prefix="lightcone-web-")

    def __enter__(self) -> ServerProcess:
        for name in self.worlds:
            tiny_world(config=name.removeprefix("tiny-")).save(self.path(name))
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.folder.cleanup()

    def path(self, name: str) -> Path:
        """Return the path of a file in this server's folder."""
        return Path(self.folder.name) / name

    def start(self) -> None:
        """Start the process and wait until it is ready. Raise RuntimeError with its log if it does not become ready."""
        flags = [flag for name in self.worlds for flag in ("--world", str(self.path(name)))]
        flags += ["--port", str(self.port), "--threads", "1", "--no-compile"]
        command = [sys.executable, "lightcone.py", "serve", *flags]
        with self.path("server.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server is not ready (exit code {self.process.poll()}); its log:\n{self.log()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def is_ready(self) -> bool:
        """Return whether /readyz answers 200."""
        try:
            with urllib.request.urlopen(f"{self.url}readyz", timeout=1.0) as reply:  # the server's own address
                return bool(reply.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def log(self) -> str:
        """Return the end of the server's log."""
        path = self.path("server.log")
        return path.read_text(encoding="utf-8")[-4000:] if path.exists() else ""
