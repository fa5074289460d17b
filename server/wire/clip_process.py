"""Uploaded pictures are read in a process of their own, which is ended where one takes too much time or memory.

The process starts with the first picture and serves all later ones, one at a time. Over its pipes go a line of JSON
and then bytes, both ways. `python -m server.wire.clip_process` is that process.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.errors import BadImageError, ImageTooLargeError, ServerError
from server.wire.clips import check_bytes
from server.wire.clips import read_clip as read_clip_here

if sys.platform == "linux":
    import resource

MAX_CPU_S, MAX_WALL_S = 2.0, 20.0
"""Time for one picture: of the processor, and in all, for a machine that has much else to do."""
NICENESS = 5
"""How far pictures stand back behind those who play."""
BASE_BYTES, BYTES_PER_PIXEL = 64 << 20, 32
"""Memory for one picture beyond what the process needs: in all, and for each pixel that is allowed."""
ERRORS: dict[str, type[ServerError]] = {kind.__name__: kind for kind in (BadImageError, ImageTooLargeError)}


class ClipProcess:
    """Reads pictures in another process, from any thread.

    cpu_s, base_bytes: see `MAX_CPU_S` and `BASE_BYTES`.
    """

    def __init__(self, *, cpu_s: float = MAX_CPU_S, base_bytes: int = BASE_BYTES) -> None:
        self._bounds = {"cpu_s": cpu_s, "base_bytes": base_bytes}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        return None if self._process is None else self._process.pid

    def read_clip(
        self, data: bytes, height: int, width: int, *, max_bytes: int, max_pixels: int, max_frames: int = 1
    ) -> NDArray[np.uint8]:
        """Do what `server.wire.clips.read_clip` does. Raises ImageTooLargeError also where time or memory ran out."""
        check_bytes(data, max_bytes)
        bounds = {"max_bytes": max_bytes, "max_pixels": max_pixels, "max_frames": max_frames}
        with self._lock:
            reply, payload = self._exchange({"shape": (height, width), "bounds": bounds, **self._bounds}, data)
        if "error" in reply:
            raise ERRORS[reply["error"]](reply["message"])
        return np.frombuffer(payload, np.uint8).reshape(-1, height, width, 3)

    def close(self) -> None:
        """End the process, if there is one. The next picture starts another."""
        with self._lock:
            self._end()

    def _exchange(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        too_late = threading.Timer(MAX_WALL_S, process.kill)
        too_late.daemon = True
        too_late.start()
        try:
            _send(process.stdin, request, data)
            return _receive(process.stdout)
        except (EOFError, BrokenPipeError) as exc:
            self._end()
            raise ImageTooLargeError(
                f"the picture took more than {self._bounds['cpu_s']:g} s to read, or too much memory; send a smaller "
                "or simpler one"
            ) from exc
        finally:
            too_late.cancel()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(  # noqa: S603  # nothing in it comes from a client
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **single, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


PROCESS = ClipProcess()
"""The process that all servers of this process share."""
read_clip = PROCESS.read_clip
atexit.register(PROCESS.close)


def _send(pipe: IO[bytes], header: dict[str, Any], data: bytes) -> None:
    pipe.write(json.dumps(header | {"bytes": len(data)}).encode() + b"\n" + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read a header and its bytes. Raises EOFError where the other side has ended."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    header: dict[str, Any] = json.loads(line)
    data = pipe.read(num_bytes := header.pop("bytes"))
    if len(data) < num_bytes:
        raise EOFError
    return header, data


def main() -> None:
    """Read pictures from standard input until it ends."""
    if sys.platform != "win32":
        os.nice(NICENESS)
    Image.init()  # now, so that loading the formats does not count as reading the first picture
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the end of the input is the end
    while True:
        try:
            request, data = _receive(sys.stdin.buffer)
        except EOFError:
            return
        limit_memory(request["base_bytes"], request["bounds"]["max_pixels"])
        limit_cpu(request["cpu_s"])
        try:
            clip = read_clip_here(data, *request["shape"], **request["bounds"])
            reply, payload = {}, clip.tobytes()
        except ServerError as exc:
            reply, payload = {"error": type(exc).__name__, "message": str(exc)}, b""
        limit_cpu(0)
        _send(sys.stdout.buffer, reply, payload)


def limit_memory(base_bytes: int, max_pixels: int) -> None:
    """Bound the memory that this process may use beyond what it has, on Linux, and the pixels that Pillow allocates."""
    Image.MAX_IMAGE_PIXELS = max_pixels
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        bound = used + base_bytes + BYTES_PER_PIXEL * max_pixels
        resource.setrlimit(resource.RLIMIT_AS, (bound if most == resource.RLIM_INFINITY else min(bound, most), most))


def limit_cpu(seconds: float) -> None:
    """End this process, also inside a decoder, when it has used the processor for `seconds` from now; 0: never.

    Without POSIX timers only `MAX_WALL_S` ends a picture.
    """
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    main()
