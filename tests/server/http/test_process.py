"""A server as its own process, from a checkpoint on disk to a player and to an orderly shutdown."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from server import ServerConfig, run
from server.errors import ConfigError
from server.http.process import listen, watch
from server.wire.protocol import Error, GoAway
from tests.server.raw import hello, raw_client
from tests.server.waiting import until
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from pathlib import Path
import server
worlds = {"tiny": Path(sys.argv[1])}
server.run(server.ServerConfig(worlds=worlds, port=0, num_threads=1, compiles=False, log_json=True))
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    tiny_world().save(tmp_path / "tiny")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tiny")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        yield started
        if started.poll() is None:
            started.kill()


async def test_a_process_prints_its_url_serves_a_player_and_announces_its_end(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Lightcone is ready: http://127.0.0.1:"), line
    url = line.split()[-1]
    assert httpx.get(f"{url}/readyz").status_code == 200
    async with raw_client(url, hello("tiny")) as client:
        began = time.monotonic()
        await client.play(3)
        assert time.monotonic() - began < 2
        process.send_signal(signal.SIGTERM)
        while not isinstance(message := await client.receive(), GoAway):
            pass
        assert message.time_left_s > 0
        error = await client.error()
        assert isinstance(error, Error)
        assert error.code == "shutting_down"
        assert await client.close_code() == 1012
    _, log = process.communicate(timeout=10)
    assert '"session": "' + client.welcome.session + '"' in log
    assert "Traceback" not in log


def test_small_messages_are_sent_at_once() -> None:
    """Without TCP_NODELAY a frame can wait for the client's delayed TCP acknowledgement of the frame before."""

    async def accepted_option() -> int:
        options: asyncio.Queue[int] = asyncio.Queue()

        def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            options.put_nowait(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen("127.0.0.1", 0)
        async with await asyncio.start_server(on_connect, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.close()
            return await asyncio.wait_for(options.get(), 10)

    assert asyncio.run(accepted_option()) != 0


async def test_a_process_that_could_not_announce_itself_ends_all_the_same_when_its_model_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The reader of its output may be gone."""

    def announce() -> None:
        raise BrokenPipeError

    ready = threading.Event()
    ready.set()
    engine = SimpleNamespace(ready=ready, failure=None)
    server = SimpleNamespace(should_exit=False)
    app = SimpleNamespace(state=SimpleNamespace(engine=engine))
    watcher = asyncio.create_task(watch(cast("FastAPI", app), cast("uvicorn.Server", server), announce))
    try:
        await until(lambda: "announcing it failed" in caplog.text, "the log has the failure")
        assert not server.should_exit
        engine.failure = ArithmeticError("the world is upside down")
        await asyncio.wait_for(watcher, 10)
        assert server.should_exit
    finally:
        gc.unfreeze()


def test_a_port_in_use_is_named_with_the_remedy() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"{port}.*another port"):
            run(ServerConfig(port=port))
