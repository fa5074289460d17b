"""Connections are counted before they speak, and refused without harm when there are too many for the process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from server.config import ServerConfig
from server.http import acceptor as acceptor_module
from server.http.acceptor import Acceptor, free_descriptors
from server.http.budgets import Budgets
from tests.server.conftest import CONFIG
from tests.server.http.peer import Peer
from tests.server.raw import hello, raw_client
from tests.server.serving import serve
from tests.server.waiting import until
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import resource, sys
from pathlib import Path
import server
resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))
server.run(server.ServerConfig(worlds={"tiny": Path(sys.argv[1])}, port=0, num_threads=1, compiles=False))
"""


class ExhaustedListener(socket.socket):
    """Can accept nothing, because the process has no descriptor left."""

    attempts = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.attempts += 1
        raise OSError(errno.EMFILE, "Too many open files")


async def test_without_descriptors_the_server_waits_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    with ExhaustedListener() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        budgets = Budgets(ServerConfig(), lambda: 0.0)
        acceptor = Acceptor(budgets, lambda _meter: asyncio.Protocol(), max_open=99, tls=None, timeout_s=1.0)
        acceptor.listen(listener)
        with closing(socket.create_connection(listener.getsockname())):
            await asyncio.sleep(3.5 * acceptor_module.EXHAUSTED_PAUSE_S)
        acceptor.close()
    assert 2 <= listener.attempts <= 4
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert "ulimit -n" in record.getMessage()


async def test_connections_that_say_nothing_count_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.http.process.free_descriptors", lambda: 5)
    with serve(CONFIG, {"pixel": tiny_world}) as server:
        silent = [Peer(server.port) for _ in range(5)]
        await until(lambda: server.app.state.budgets.num_open == 5, "all are counted")
        refused = Peer(server.port)
        answer = refused.until_closed()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in answer
        assert server.server.acceptor is not None
        assert server.server.acceptor.num_refused == 1
        await until(lambda: server.app.state.budgets.num_open == 0, "those that say nothing are closed in time")
        async with raw_client(server.url, hello()) as player:
            assert await player.play(2)
        for peer in (*silent, refused):
            peer.end()


@pytest.mark.skipif(sys.platform != "linux", reason="needs several loopback addresses")
def test_a_process_at_its_limit_logs_little_and_recovers(tmp_path: Path) -> None:
    tiny_world().save(tmp_path / "tiny")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "tiny")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            url = process.stdout.readline().split()[-1].decode()
            port = int(url.rpartition(":")[2])
            idle = [Peer(port, f"127.0.0.{2 + number % 8}") for number in range(300)]
            with pytest.raises(httpx.HTTPStatusError, match="503"):
                httpx.get(f"{url}/healthz").raise_for_status()
            for peer in idle:
                peer.end("reset")
            for _ in range(50):
                if httpx.get(f"{url}/healthz").status_code == 200:
                    break
            assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        finally:
            process.terminate()
        log = process.stderr.read().decode()
    assert "Traceback" not in log
    assert len(log.splitlines()) < 20


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
@pytest.mark.parametrize("sends", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_tls_handshake_has_its_time_from_the_connection_on(tmp_path: Path, sends: bytes) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", "req", *kind, *subject, *files], check=True, capture_output=True)
    with serve(replace(CONFIG, tls_cert=cert, tls_key=key), {"pixel": tiny_world}) as server:
        with closing(socket.create_connection(("127.0.0.1", server.port))) as silent:
            began = time.monotonic()
            silent.sendall(sends)
            silent.settimeout(10.0)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.to_thread(silent.recv, 100) == b""
            assert CONFIG.handshake_timeout_s * 0.9 < time.monotonic() - began < 5
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=cert)) as client:
            assert (await client.get(f"https://localhost:{server.port}/healthz")).json() == {"status": "ok"}
        await until(lambda: server.app.state.budgets.num_open <= 1, "the silent one is not counted any more")


def test_the_reserve_is_taken_from_the_limit_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1000, 1000))
    assert 500 < free_descriptors() < 1000 - acceptor_module.RESERVED_DESCRIPTORS
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (10, 10))
    assert free_descriptors() == 1
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert free_descriptors() > 10**6
