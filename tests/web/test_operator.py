"""The operator page in a real browser: it shows a server with one player, and reports an unreachable server."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from tests.web.driving import drive
from tests.web.serving import ServerProcess


@pytest.mark.browser
def test_the_operator_page_shows_a_player_and_an_unreachable_server(
    server: ServerProcess, chromium: str, tmp_path: Path
) -> None:
    seen = drive("operator", server, tmp_path, chromium)
    playing, narrow, lost, back = seen["playing"], seen["narrow"], seen["lost"], seen["back"]
    world = server.worlds[0]
    assert (playing["said"], playing["stale"], playing["trouble"]) == ("Ready", "false", "")
    assert playing["tiles"]["sessions"] == "1"
    assert playing["tiles"]["queue"] == "0"
    assert playing["tiles"]["suspended"].isdigit(), "the server reports the number of suspended sessions"
    assert playing["tiles"]["batch"] == "1.0"
    assert float(playing["tiles"]["sent"]) > 0
    assert playing["tiles"]["p99"].endswith("ms")
    assert playing["lines"] == len(playing["tiles"])
    assert playing["ticks"][:2] == [world, "1"]
    assert playing["decodes"][0] == world
    assert all(float(row[-3]) > 0 for row in (playing["ticks"], playing["decodes"])), "a positive rate"
    assert playing["admissions"][::2] == [world, "1"]
    assert narrow["sideways"] == 0
    assert lost["said"] == "Unreachable"
    assert "cannot be reached" in lost["trouble"]
    assert lost["stale"] == "true"
    assert lost["tiles"] == {**lost["tiles"], "sessions": "1"}, "the last figures remain"
    assert (back["said"], back["stale"], back["trouble"]) == ("Ready", "false", "")
    assert seen["idle"] == "", "this server does not compile"
    assert "compiling 3 of 8" in seen["compiling"]


@pytest.mark.browser
def test_the_operator_page_has_the_security_headers_of_the_page(server: ServerProcess) -> None:
    with urllib.request.urlopen(f"{server.url}operator.html", timeout=10.0) as reply:  # the server's own address
        headers, text = reply.headers, reply.read().decode()
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert headers["Cache-Control"] == "no-cache"
    assert " style=" not in text, "inline styles are forbidden by that policy"
