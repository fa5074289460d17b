"""`lightcone serve` as a process: it prints its address, serves the worlds of its flags and stops on an interrupt."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import urllib.request
from argparse import ArgumentParser
from pathlib import Path

import pytest

from server.cli.arguments import DEFAULT_WORLD, add_serve_arguments
from server.cli.serve import config_from, shipped_worlds, tokens_in
from server.config import ServerConfig
from server.errors import ConfigError
from tests.server.command_line import LIGHTCONE, serving
from world import catalogue
from world.errors import RangeError
from world.testing import tiny_world


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "tiny"
    tiny_world().save(folder)
    return folder


def test_it_prints_its_address_serves_the_world_and_stops_on_an_interrupt(tiny: Path) -> None:
    with serving("serve", "--world", str(tiny)) as (process, url):
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as reply:
            assert reply.status == 200
        with urllib.request.urlopen(f"{url}/v1/worlds", timeout=5) as reply:
            assert [world["name"] for world in json.load(reply)["worlds"]] == ["tiny"]
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(timeout=30) in (0, 130)
        assert "Traceback" not in rest


def test_a_port_in_use_is_named(tiny: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        command = [*LIGHTCONE, "serve", "--world", str(tiny), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_the_flags_become_the_configuration(tiny: Path) -> None:
    parser = ArgumentParser()
    add_serve_arguments(parser)
    words = (
        "--host 0.0.0.0 --port 9000 --max-sessions 3 --threads 2 --allow-origin https://a.example --log-json --trace"
    )
    tokens = tiny.parent / "tokens"
    tokens.write_text(f"{'a' * 16}\n\n{'b' * 20} \n")
    more = f"--max-batch 2 --allow-host b.example --timeline-frames 90 --token-file {tokens} --max-per-address 5"
    more += " --address-share 0.5 --address-budget 300"
    more += f" --store {tiny.parent / 'sessions.db'} --admit-all --no-compile"
    args = parser.parse_args(["--world", str(tiny), *words.split(), *more.split()])
    config = config_from(args, args.world)
    assert config == ServerConfig(
        worlds={"tiny": tiny},
        host="0.0.0.0",
        port=9000,
        max_sessions=3,
        max_batch=2,
        timeline_frames=90,
        num_threads=2,
        allowed_origins=("https://a.example",),
        allowed_hosts=("b.example",),
        tokens=("a" * 16, "b" * 20),
        max_per_address=5,
        address_share=0.5,
        address_budget=300.0,
        store=tiny.parent / "sessions.db",
        headroom=None,
        compiles=False,
        log_json=True,
        trace=True,
    )


def test_by_default_the_shipped_worlds_are_served_the_default_one_first(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("another", DEFAULT_WORLD):
        tiny_world().save(tmp_path / "shipped" / name)
    monkeypatch.setattr(catalogue, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv("LIGHTCONE_WORLDS", str(tiny.parent))
    monkeypatch.chdir(tmp_path)
    assert shipped_worlds() == [DEFAULT_WORLD, "another"]


def test_two_folders_with_the_same_name_are_refused(tiny: Path, tmp_path: Path) -> None:
    tiny_world(seed=1).save(tmp_path / "tiny")
    args = ArgumentParser()
    add_serve_arguments(args)
    flags = args.parse_args([])
    with pytest.raises(ConfigError, match="tiny"):
        config_from(flags, [str(tiny), str(tmp_path / "tiny")])
    assert config_from(flags, [str(tiny), str(tiny)]).worlds == {"tiny": tiny}


@pytest.mark.parametrize("flag", ["--session-memory", "--memory", "--store-size"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_a_size_that_is_no_number_is_refused_by_its_flag(tiny: Path, flag: str, value: str) -> None:
    args = ArgumentParser()
    add_serve_arguments(args)
    with pytest.raises(RangeError, match=flag):
        config_from(args.parse_args([flag, value]), [str(tiny)])


def test_a_token_file_may_have_comments_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# for the evening\n\nabcdefghijklmnop\n  # indented\nqrstuvwxyzabcdef\n", encoding="utf-8-sig")
    assert tokens_in(path) == ("abcdefghijklmnop", "qrstuvwxyzabcdef")
    path.write_text("# only a comment\n")
    with pytest.raises(ConfigError, match="has no token"):
        tokens_in(path)
