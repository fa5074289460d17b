"""Opening the browser: only once the server says that it is warm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from server import command_play

READY_AT_REQUEST = 3


class _Warming(BaseHTTPRequestHandler):
    """Answers /readyz with 503 twice, then with 200."""

    asked: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if len(self.asked) >= READY_AT_REQUEST else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass


@pytest.fixture
def warming_server() -> Iterator[tuple[str, list[str]]]:
    class Handler(_Warming):
        asked: ClassVar[list[str]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}", Handler.asked
        httpd.shutdown()
        thread.join()


def test_the_browser_opens_when_the_server_is_ready_and_not_before(
    warming_server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = warming_server
    opened: list[tuple[str, int]] = []

    def browser(address: str) -> bool:
        opened.append((address, len(asked)))
        return True

    monkeypatch.setattr("webbrowser.open", browser)
    monkeypatch.setattr(command_play, "POLL_S", 0.01)
    assert command_play.open_when_ready(url, timeout_s=10.0)
    assert opened == [(url, READY_AT_REQUEST)]
    assert set(asked) == {"/readyz"}


def test_no_server_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_play, "POLL_S", 0.01)
    monkeypatch.setattr("webbrowser.open", lambda address: pytest.fail(f"opened {address}"))
    port = command_play.free_port("127.0.0.1")
    assert not command_play.open_when_ready(f"http://127.0.0.1:{port}", timeout_s=0.1)
