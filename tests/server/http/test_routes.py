"""The plain HTTP routes against their own OpenAPI description, by schemathesis, with valid and invalid requests."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx

from tests.server.conftest import CONFIG
from tests.server.serving import serve
from world.testing import tiny_world

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_every_route_answers_as_its_description_says(tmp_path: Path) -> None:
    with serve(CONFIG, {"pixel": tiny_world}) as server:
        for _ in range(200):
            if httpx.get(f"{server.url}/v1/worlds/pixel/preview").status_code != 503:
                break
            time.sleep(0.05)
        paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
        assert set(paths) == {"/v1/worlds", "/v1/worlds/{name}/preview", "/healthz", "/readyz", "/metrics"}
        command = [str(SCHEMATHESIS), "run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", "40"]
        done = subprocess.run(
            [*command, "--seed", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr


def test_head_answers_as_get_without_a_body(tmp_path: Path) -> None:
    def check(url: str, path: str) -> None:
        got, head = httpx.get(f"{url}{path}"), httpx.head(f"{url}{path}")
        told = ("content-type", "content-length", "cache-control", "content-security-policy", "retry-after")
        assert (head.status_code, head.content) == (got.status_code, b""), path
        if path != "/metrics":  # its text changes with time
            assert [head.headers.get(name) for name in told] == [got.headers.get(name) for name in told], path

    with serve(CONFIG, {"pixel": tiny_world}) as server:
        httpx.get(f"{server.url}/v1/worlds/pixel/preview")
        for path in (
            "/v1/worlds",
            "/v1/worlds/atlantis/preview",
            "/healthz",
            "/readyz",
            "/metrics",
            "/openapi.json",
            "/",
        ):
            check(server.url, path)
    with serve(replace(CONFIG, web_dist=tmp_path), {"pixel": tiny_world}) as server:
        check(server.url, "/")
