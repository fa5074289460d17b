"""`lightcone serve` as a process: prints where it is, gets ready, serves the world it was told to, stops when asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.command_serve import add_arguments, config_from
from server.config import ServerConfig
from server.errors import ConfigError
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "tiny"
    tiny_world().save(folder)
    return folder


@contextmanager
def serving(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the address it printed; interrupted at the end if it still runs."""
    command = [sys.executable, str(ROOT / "lightcone.py"), "serve", "--port", "0", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield process, address_of(process)
        finally:
            if process.poll() is None:
                process.kill()


def address_of(process: subprocess.Popen[str]) -> str:
    """The first http address among the lines the process prints."""
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if match := re.search(r"http://127\.0\.0\.1:\d+", line):
            return match[0]
    raise AssertionError(f"the server ended without printing an address:\n{''.join(printed)}")


def wait_until_ready(url: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as reply:
                assert reply.status == 200
                return
        except urllib.error.URLError:
            assert time.monotonic() < deadline, f"{url}/readyz did not answer 200 within {timeout_s} s"
            time.sleep(0.1)


def test_it_prints_its_address_serves_the_world_and_stops_on_an_interrupt(tiny: Path) -> None:
    with serving("--world", str(tiny)) as (process, url):
        wait_until_ready(url)
        with urllib.request.urlopen(f"{url}/v1/worlds", timeout=5) as reply:
            assert [world["name"] for world in json.load(reply)["worlds"]] == ["tiny"]
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(timeout=30) in (0, 130)
        assert "Traceback" not in rest


def test_a_taken_port_is_named(tiny: Path) -> None:
    with serving("--world", str(tiny)) as (_, url):
        port = url.rpartition(":")[2]
        command = [sys.executable, str(ROOT / "lightcone.py"), "serve", "--world", str(tiny), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_the_flags_become_the_configuration(tiny: Path) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    words = "--host 0.0.0.0 --port 9000 --max-sessions 3 --threads 2 --allow-origin https://a.example --log-json"
    args = parser.parse_args(["--world", str(tiny), *words.split()])
    config = config_from(args, args.world)
    assert config == ServerConfig(
        worlds={"tiny": tiny},
        host="0.0.0.0",
        port=9000,
        max_sessions=3,
        num_threads=2,
        allowed_origins=("https://a.example",),
        log_json=True,
    )


def test_two_folders_of_one_name_are_refused(tiny: Path, tmp_path: Path) -> None:
    tiny_world(seed=1).save(tmp_path / "tiny")
    args = ArgumentParser()
    add_arguments(args)
    flags = args.parse_args([])
    with pytest.raises(ConfigError, match="tiny"):
        config_from(flags, [str(tiny), str(tmp_path / "tiny")])
    assert config_from(flags, [str(tiny), str(tiny)]).worlds == {"tiny": tiny}
