"""The documents keep up with the code: what they link to exists, what they show runs, what exists is named."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import lightcone
from distill.training.state import trained_steps
from tests.server.command_line import serving
from world.testing import tiny_world

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_inside_the_repository_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    inside = [target for target in targets if "://" not in target]
    assert not [target for target in inside if not (document.parent / target).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_metric_or_a_flag_has_one_row(document: Path) -> None:
    rows = re.findall(r"^\| (`(?:lightcone_|--)[^|]+)\|", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(set(rows))


def test_the_readme_opens_with_the_two_commands() -> None:
    commands = re.findall(r"^(make \w+)", README.split("```")[1], flags=re.MULTILINE)
    assert commands == ["make serve", "make test"]


def test_make_has_every_target_the_documents_use() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        used = set(re.findall(r"^(?:.*`)?make ([a-z]+)", text, flags=re.MULTILINE))
        assert used <= targets, f"{document.name} uses make {used - targets}"


def test_the_readme_names_every_verb_and_every_folder() -> None:
    assert set(re.findall(r"^\| `lightcone (\w+)`", README, flags=re.MULTILINE)) == set(lightcone.VERBS)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {line.split("/")[0] for line in listed.splitlines() if "/" in line and not line.startswith(".")}
    tree = README.split("```")[3]
    assert not [folder for folder in folders if f"{folder}/" not in tree]


def python_example(word: str) -> str:
    """The one Python example of the README that holds a word."""
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if word in code]
    return str(found)


def test_the_readme_example_of_the_library_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, but on a small world of the same buttons in the same place."""
    tiny_world().save(tmp_path / "checkpoints" / "pong")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(python_example("world.start("), names)  # noqa: S102  # the README is ours
    assert tuple(names["frames"].shape) == (1, 1, 32, 32, 3)


def test_the_guides_example_of_an_own_network_trains_its_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As written, but for the number of steps."""
    guide = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace("num_steps=2000", "num_steps=2"), names)  # noqa: S102  # the guide is ours
    pairs = zip(names["student"].parameters(), names["teacher"].parameters(), strict=True)
    assert not any(torch.equal(*pair) for pair in pairs)
    assert trained_steps(tmp_path / "runs" / "digits") == 2
    assert names["images"].shape == (10, 1, 8, 8)
    assert "student: 100%" in capsys.readouterr().err, "the bar has the network's name"


def test_the_readme_example_of_the_client_runs(tmp_path: Path) -> None:
    """As written, but for the port, against a real server of a small world."""
    tiny_world().save(tmp_path / "pong")
    names: dict[str, Any] = {}
    with serving("serve", "--world", str(tmp_path / "pong")) as (_, url):
        exec(python_example("lightcone_client").replace("http://127.0.0.1:8000", url), names)  # noqa: S102
    assert names["picture"].shape == (32, 32, 3)
    assert names["frame"].applied_seq is not None
    assert names["frame"].index >= 100


def test_no_address_of_a_package_registry_and_no_path_of_one_machine() -> None:
    state_variables = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    texts = {".json", ".md", ".py", ".toml", ".ts", ".txt", ".yml", "", ".mjs", ".html", ".css"}
    forbidden = re.compile(rf'"resolved": *"http|https?://\S+(\.whl|\.tgz|/simple)\b|{re.escape(str(ROOT))}/')
    for name in state_variables.split("\0"):
        path = ROOT / name
        if name and path.suffix in texts and path.is_file():
            assert not forbidden.search(path.read_text(encoding="utf-8")), f"{name} names a registry or this checkout"
