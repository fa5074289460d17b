"""The Makefile and the pinned releases, on machines other than this one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAKE = shutil.which("make")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def make(folder: Path, rule: str) -> subprocess.CompletedProcess[str]:
    """One rule more, run with nothing but `folder` on the search path."""
    assert MAKE is not None
    command = [MAKE, "--silent", f"--eval={rule}", "probe"]
    environment = {"PATH": str(folder), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
@pytest.mark.parametrize("name", ["python3.11", "python3.13", "python3", "python"])
def test_any_name_of_python_is_found(name: str, tmp_path: Path) -> None:
    program(tmp_path / name, "")
    assert make(tmp_path, "probe: ; @if true; then echo $(PYTHON); fi").stdout.split() == [str(tmp_path / name)]


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
def test_of_several_pythons_the_first_is_taken(tmp_path: Path) -> None:
    for name in ("python3", "python3.12"):
        program(tmp_path / name, "")
    assert make(tmp_path, "probe: ; @if true; then echo $(PYTHON); fi").stdout.split() == [str(tmp_path / "python3.12")]


@pytest.mark.skipif(MAKE is None or shutil.which("node") is None, reason="make or Node is not installed")
@pytest.mark.parametrize(
    ("version", "is_new"),
    [("18.20.4", False), ("20.18.9", False), ("20.19.0", True), ("20.20.2", True), ("22.3.0", True), (None, False)],
)
def test_the_page_is_checked_where_node_is_new_enough(version: str | None, is_new: bool, tmp_path: Path) -> None:
    """`node` here is the real one, told that it is of another release."""
    if version is not None:
        program(tmp_path / "npm", "")
        told = f"Object.defineProperty(process, 'versions', {{value: {{node: '{version}'}}}});"
        program(tmp_path / "node", f'{shutil.which("node")} -e "{told}$2"')
    answer = make(tmp_path, "probe: ; @if $(NEW_NODE); then echo new; else echo old; fi")
    assert answer.stdout.split() == ["new" if is_new else "old"], answer.stderr


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert not [pin for pin in pins.values() if "+" in pin]  # no build of one machine
    extras = [line for name in ("data", "dev") for line in PROJECT["optional-dependencies"][name]]
    names = {normal(re.split(r"[\[<>=]", line)[0]) for line in [*PROJECT["dependencies"], *extras]}
    assert names <= {normal(name) for name in pins}


def test_every_optional_dependency_of_programs_is_imported_by_one() -> None:
    """Those of `dev` are tools."""
    rooms = [ROOT / room for room in ("benchmarks", "distill", "kernels", "server", "world")]
    sources = [path for room in rooms for path in room.rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", text, flags=re.MULTILINE))
    provided = [(normal(name), module) for module, names in packages_distributions().items() for name in names]
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name not in ("dev", "trace")}
    for line in [line for lines in extras.values() for line in lines]:
        name = normal(re.split(r"[\[<>=]", line)[0])
        assert {name, *(module for owner, module in provided if owner == name)} & imported, f"nothing imports {name}"
