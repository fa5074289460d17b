"""The `lightcone` command as a process, for the tests of its serving verbs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIGHTCONE = [sys.executable, str(ROOT / "lightcone.py")]


@contextmanager
def serving(
    *words: str, env: dict[str, str] | None = None, port: str = "0"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `lightcone WORDS --port PORT`, without compiling in the background; yield the process and the address that it
    prints when it is warm.

    The process is killed at the end if it is still running.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    command = [*LIGHTCONE, *words, "--port", port, "--no-compile"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield process, address_of(process)
        finally:
            if process.poll() is None:
                process.kill()


def address_of(process: subprocess.Popen[str]) -> str:
    """Return the first http address that the process prints."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if match := re.search(r"http://127\.0\.0\.1:\d+", line):
            return match[0]
    raise AssertionError(f"the server ended without printing an address:\n{''.join(printed)}")
