"""The load benchmark: its figures, and a run with every kind of player on a real server."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import attacks, serve
from benchmarks.attackers import ATTACKS, Target, address_for
from benchmarks.attacks import attacked
from benchmarks.memory import Memory
from benchmarks.players import BEHAVIOURS, Seen
from benchmarks.serve import Load, capacity, figures, jain, kinds_of, measure
from server.errors import ConfigError
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[2]


def test_a_mix_is_expanded_to_one_kind_per_player() -> None:
    assert kinds_of(["steady=2", "idle=1", "hostile=0"]) == ["steady", "steady", "idle"]
    for wrong in ("steady", "steady=", "steady=-1", "lazy=1"):
        with pytest.raises(ConfigError, match=f"mix has '{wrong}'; write KIND=N"):
            kinds_of([wrong])


def test_jains_index_is_one_for_equal_shares_and_one_over_n_if_one_has_everything() -> None:
    assert jain([5, 5, 5, 5]) == 1.0
    assert jain([7, 0, 0, 0]) == 0.25
    assert jain([0, 0]) == 0.0


def test_rates_and_latencies_are_those_of_steady_and_bursty_players() -> None:
    seen = [
        Seen("steady", frames=300, latencies_ms=[10.0] * 99, connected=1),
        Seen("bursty", frames=100, latencies_ms=[500.0], connected=1, queued=2),
        Seen("hostile", connected=3, ended=["rate_limited", "rate_limited"], suffered_s=0.5),
        Seen("idle", frames=1, connected=1),
    ]
    found = figures(seen, 10.0)
    assert (found["sessions"], found["playing"], found["queued"]) == (4, 2, 1)
    assert (found["fps_total"], found["fps_per_session"]) == (40.0, [30.0, 10.0])
    assert (found["action_to_frame_ms_p50"], found["action_to_frame_ms_p99"]) == (10.0, 500.0)
    assert found["jain"] == pytest.approx(400**2 / (2 * (300**2 + 100**2)), abs=1e-4)
    assert found["others"]["hostile"] == {
        "sessions": 1,
        "connected": 3,
        "frames": 0,
        "resumed": 0,
        "ended": {"rate_limited": 2},
        "duty": 0.0,
        "suffered_s_max": 0.5,
    }


def test_a_player_admitted_after_the_measurement_does_not_count_as_entered() -> None:
    found = figures(
        [Seen("steady", frames=9, latencies_ms=[1.0], connected=1), Seen("steady", connected=1, queued=2)], 1.0
    )
    assert (found["queued"], found["entered"], found["p99_per_session"]) == (1, 0, [1.0, None])


def test_memory_growth_compares_the_last_tenth_with_the_first() -> None:
    memory = Memory(0, [100.0, 100.0, *[150.0] * 16, 110.0, 110.0])
    assert memory.figures()["rss_growth"] == pytest.approx(0.1)


@pytest.mark.parametrize("limit", [1, 5, 6, 8])
def test_the_search_finds_the_capacity(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_: Load, kinds: list[str]) -> dict[str, Any]:
        rate = 30.0 if len(kinds) <= limit else 20.0
        return {
            "sessions": len(kinds),
            "fps_target": 30.0,
            "fps_per_session": [rate] * len(kinds),
            "action_to_frame_ms_p99": 50.0,
        }

    monkeypatch.setattr(serve, "measure", measure)
    load = Load(world="pong", seconds=1.0)
    rows = list(capacity(load, None, 100.0))
    assert max(row["sessions"] for row in rows if row["holds"]) == limit
    assert {limit, limit + 1} <= {row["sessions"] for row in rows}
    assert not any(row["holds"] for row in capacity(load, None, 10.0))


def test_it_plays_a_real_server_with_every_kind_of_player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # for other machines
    tiny_world().save(tmp_path / "tiny")
    mix = [f"{kind}={1 + (kind == 'steady')}" for kind in sorted(set(BEHAVIOURS) - set(ATTACKS))]
    command = [
        "lightcone.py",
        "bench",
        "serve",
        "--world",
        str(tmp_path / "tiny"),
        "--seconds",
        "2",
        "--json",
        "--store",
    ]
    answer = subprocess.run([sys.executable, *command, "--mix", *mix], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert (report["sessions"], report["playing"]) == (9, 3)
    assert report["fps_total"] == pytest.approx(sum(report["fps_per_session"]), abs=0.01)
    assert 0 < report["action_to_frame_ms_p50"] <= report["action_to_frame_ms_p99"]
    assert min(report["fps_per_session"]) > 1
    assert 0 < report["jain"] <= 1
    assert report["rss_mb"] > 50
    others = report["others"]
    assert others["hostile"]["ended"]["1008"] >= 1
    assert others["reconnecting"]["resumed"] >= 1
    assert others["reconnecting"]["connected"] == 1
    assert (report["errors_logged"], report["out_of_order"]) == (0, 0)
    assert others["idle"]["frames"] == 0


def test_an_attack_is_compared_with_processes_that_only_spin_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[list[str], float]] = []

    def measure(load: Load, kinds: list[str]) -> dict[str, Any]:
        assert load.guarded
        assert load.admission
        measured.append((kinds, load.duty))
        rate = 24.0 if "pinging" in kinds else 30.0
        return {
            "fps_per_session": [rate, rate],
            "fps_total": 2 * rate,
            "action_to_frame_ms_p99": 50.0,
            "errors_logged": 0,
            "rss_mb": 1.0,
            "others": {"pinging": {"duty": 0.5}, "scraping": {"duty": 0.3}},
        }

    monkeypatch.setattr(attacks, "measure", measure)
    rows = list(attacked(Load(world="pong", seconds=1.0), 2, ["pinging", "scraping"]))
    assert [row["attackers"] for row in rows] == [["pinging"], ["scraping"], ["pinging", "scraping"]]
    assert [row["lost"] for row in rows] == pytest.approx([0.2, 0.0, 0.2])
    controls = [(len(kinds), duty) for kinds, duty in measured if "spinning" in kinds]
    assert controls == [(3, 0.5), (3, 0.3), (4, 0.4)]


def test_attacks_need_steady_players_to_compare() -> None:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    with pytest.raises(ConfigError, match="give --sessions N or --mix steady=N"):
        serve.run(parser.parse_args(["--mix", "idle=2", "--attacks", "pinging"]))


def test_attacks_go_to_this_machine_only() -> None:
    with pytest.raises(ValueError, match=r"192\.0\.2\.1.* is not a loopback address"):
        Target("http://192.0.2.1:80", "pong", 0.0, "127.0.0.2")
    assert len({address_for(kind) for kind in ATTACKS}) == len(ATTACKS)


@pytest.mark.skipif(sys.platform != "linux", reason="needs several loopback addresses")
def test_steady_players_play_on_under_all_attacks_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # for other machines
    tiny_world().save(tmp_path / "tiny")
    load = Load(world=str(tmp_path / "tiny"), seconds=4.0, guarded=True, max_sessions=8)
    report = measure(load, ["steady", "steady", *ATTACKS])
    assert report["fps_total"] > 0
    assert (report["errors_logged"], report["ended"], report["queued"]) == (0, [], 0)
    for kind in ATTACKS:
        assert report["others"][kind]["duty"] > 0
    assert report["others"]["pinging"]["connected"] > 1, "it was cut off and came again"
