"""The operator's page in a real browser: it follows a server that somebody plays on, and says when there is none."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from tests.web.driving import drive
from tests.web.serving import ServerProcess


@pytest.mark.browser
def test_an_operator_sees_that_somebody_plays(server: ServerProcess, chromium: str, tmp_path: Path) -> None:
    seen = drive("operator", server, tmp_path, chromium)
    playing, narrow, lost, back = seen["playing"], seen["narrow"], seen["lost"], seen["back"]
    world = server.worlds[0]
    assert (playing["said"], playing["stale"], playing["trouble"]) == ("Ready", "false", "")
    assert playing["tiles"]["sessions"] == "1"
    assert playing["tiles"]["queue"] == "0"
    assert playing["tiles"]["batch"] == "1.0"
    assert float(playing["tiles"]["sent"]) > 0
    assert playing["tiles"]["p99"].endswith("ms")
    assert playing["lines"] == len(playing["tiles"])
    assert playing["ticks"][:2] == [world, "1"]
    assert playing["decodes"][0] == world
    assert all(float(row[-3]) > 0 for row in (playing["ticks"], playing["decodes"])), "so many a second"
    assert playing["admissions"][::2] == [world, "1"]
    assert narrow["sideways"] == 0
    assert lost["said"] == "Unreachable"
    assert "cannot be reached" in lost["trouble"]
    assert lost["stale"] == "true"
    assert lost["tiles"] == {**lost["tiles"], "sessions": "1"}, "the last figures stay"
    assert (back["said"], back["stale"], back["trouble"]) == ("Ready", "false", "")


@pytest.mark.browser
def test_the_operator_page_is_served_under_the_pages_rules(server: ServerProcess) -> None:
    with urllib.request.urlopen(f"{server.url}operator.html", timeout=10.0) as reply:  # our own http address
        headers, text = reply.headers, reply.read().decode()
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert headers["Cache-Control"] == "no-cache"
    assert " style=" not in text, "which these rules would not let through"
