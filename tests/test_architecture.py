"""The architecture as drawn: which package and which room may import which, no circles, no file that grew too long."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture import (
    ROOT,
    arrows_up,
    imported,
    imports_of,
    load_order,
    module_graph,
    packages_of,
    picture,
    private_imports,
    sources,
)

DOCUMENT = ROOT / "docs" / "architecture.md"

# What each package may import of the others. kernels <- world <- distill and kernels <- world <- server.
ARROWS: dict[str, set[str]] = {
    "kernels": set(),
    "world": {"kernels"},
    "distill": {"kernels", "world"},
    "server": {"world"},
    "benchmarks": {"kernels", "world", "distill", "server", "lightcone_client"},
    "lightcone": {"world", "distill", "server", "benchmarks"},
    "lightcone_client": set(),
    "web": set(),
}
FOLDERS = {
    **{name: ROOT / name for name in ("kernels", "world", "distill", "server", "benchmarks")},
    "lightcone": ROOT / "lightcone.py",
    "lightcone_client": ROOT / "clients" / "python" / "lightcone_client",
    "web": ROOT / "clients" / "web",
}

# The rooms of each package, lowest floor first: a room may import those on lower floors only.
FLOORS: dict[str, list[list[str]]] = {
    "world": [
        ["errors", "device", "format_1"],
        ["numbers", "pictures"],
        ["card", "actions"],
        ["catalogue", "model", "starts"],
        ["codecs", "families", "text"],
        ["rollout"],
        ["checkpoint"],
        ["runtime", "testing"],
        ["cli"],
    ],
    "distill": [
        ["methods", "training"],
        ["data"],
        ["tasks"],
        ["codec"],
        ["recipes"],
        ["evaluation"],
        ["cli"],
    ],
    "server": [
        ["errors"],
        ["wire"],
        ["config"],
        ["telemetry"],
        ["sessions"],
        ["state"],
        ["admission", "compilation"],
        ["engine"],
        ["http"],
        ["cli"],
    ],
}

# Modules that decide without touching the outside world: what they must not import.
PURE = {
    "world": {"asyncio", "fastapi", "socket", "threading", "websockets"},
    "server/engine/scheduler.py": {"asyncio", "threading", "time", "torch"},
    "server/sessions/life.py": {"asyncio", "threading", "time", "torch"},
    "server/sessions/pacing.py": {"asyncio", "threading", "time", "torch"},
    "server/sessions/session.py": {"asyncio", "fastapi", "socket", "threading", "torch", "websockets"},
    "server/wire/protocol.py": {"asyncio", "fastapi", "socket", "threading", "torch", "websockets"},
    "clients/python/lightcone_client": {"torch"},
}

IMPURE = {"world/rollout/ownership.py": {"threading"}}
"""It asserts which thread calls, and starts none."""

MAX_LINES = 300
LONG = {
    "server/wire/protocol.py": "the whole wire in one file, each message with its fields explained",
}


@pytest.mark.parametrize("package", ARROWS)
def test_packages_import_one_way(package: str) -> None:
    files = sources(FOLDERS[package])
    assert files, f"{FOLDERS[package]} holds no Python file"
    for file in files:
        forbidden = packages_of(file) & (ARROWS.keys() - ARROWS[package] - {package})
        assert not forbidden, f"{file.relative_to(ROOT)} imports {forbidden}; {package} may import {ARROWS[package]}"


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_lower_floors_only(package: str) -> None:
    assert not arrows_up(FOLDERS[package], FLOORS[package])


@pytest.mark.parametrize("package", ["kernels", "world", "distill", "server", "benchmarks", "lightcone_client"])
def test_no_circles_inside_a_package(package: str) -> None:
    graph = module_graph(FOLDERS[package])
    assert set(load_order(graph)) == set(graph)


@pytest.mark.parametrize(
    ("package", "file", "line"),
    [
        ("server", "wire/protocol.py", "from server.engine.engine import Engine"),
        ("server", "sessions/session.py", "if TYPE_CHECKING:\n    from server.http.app import create_app"),
        ("distill", "data/clips.py", "from distill.recipes.preset import Preset"),
        ("world", "model/transformer.py", "def f():\n    from world.checkpoint import World"),
    ],
)
def test_a_planted_arrow_up_is_found(package: str, file: str, line: str, tmp_path: Path) -> None:
    copy = shutil.copytree(FOLDERS[package], tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    assert not arrows_up(copy, FLOORS[package])
    with (copy / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    (found,) = arrows_up(copy, FLOORS[package])
    assert found.startswith(f"{package}/{file} imports ")


def test_no_module_imports_a_private_name() -> None:
    folders = [*FOLDERS.values(), ROOT / "tests", ROOT / "examples"]
    found = {str(file.relative_to(ROOT)): private_imports(file) for top in folders for file in sources(top)}
    assert not {file: names for file, names in found.items() if names}


@pytest.mark.parametrize("place", PURE)
def test_pure_parts_import_no_clock_socket_or_thread(place: str) -> None:
    files = sources(ROOT / place)
    assert files, f"{place} is gone: correct this test's table"
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        found = (packages_of(file) & PURE[place]) - IMPURE.get(path, set())
        assert not found, f"{path} imports {found}"


def test_files_stay_short() -> None:
    lengths = {
        file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for top in FOLDERS.values()
        for file in sources(top)
    }
    too_long = {path: lines for path, lines in lengths.items() if lines > MAX_LINES and path not in LONG}
    assert not too_long, f"split these, or give a reason in LONG: {too_long}"
    assert not [path for path in LONG if lengths.get(path, 0) <= MAX_LINES], "LONG names files that are short or gone"


def test_the_document_has_a_line_for_every_room_and_the_floors_in_order() -> None:
    """`docs/architecture.md` lists the rooms of each package, top floor first."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for package, floors in FLOORS.items():
        listed = re.findall(rf"^\| `{package}/(\w+)(?:/|\.py)` \|", text, flags=re.MULTILINE)
        level = {room: number for number, rooms in enumerate(floors) for room in rooms}
        assert set(listed) == set(level), package
        assert [level[room] for room in listed] == sorted((level[room] for room in listed), reverse=True), package


@pytest.mark.parametrize("package", FLOORS)
def test_the_document_shows_the_picture_of_the_imports(package: str) -> None:
    """Redraw it with `python -m tests.draw_architecture`."""
    assert f"```mermaid\n{picture(FOLDERS[package])}\n```" in DOCUMENT.read_text(encoding="utf-8")


# Words that were this project's private names, replaced by the field's. Some still stand where files or callers of
# before are served: the pattern of these paths is beside each.
FORMER_NAMES = {
    r"errands?|roster|members?|lobby|outbox|wanted|parking|parked|hosting|onward|patience|patient|news|worn": None,
    r"mailbox": r"server/state/format_1\.py",
    r"[Jj]udg\w*": r"lightcone_client/gym\.py|clients_python/test_gym\.py",
    r"tracked|tracker": r"format_1\.py|recipes/(names|former_runs|test_run)\.py|test_files_from_before\.py",
    r"WorldHost|OngoingRollouts|given_context|GivenPast": None,
}


def test_former_private_names_are_gone() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kinds = {".py", ".md", ".ts", ".html", ".mjs"}
    skip = re.compile(r"/dist/|docs/log\.md|CHANGELOG\.md|tests/test_architecture\.py|checkpoints/")
    found = []
    for name in listed.splitlines():
        if Path(name).suffix not in kinds or skip.search(name) or not (ROOT / name).is_file():
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        for pattern, allowed in FORMER_NAMES.items():
            if allowed is None or not re.search(allowed, name):
                found += [f"{name}: {word}" for word in set(re.findall(rf"\b(?:{pattern})\b", text))]
    assert not found


def test_the_checks_see_what_they_should() -> None:
    tree = ast.parse("import a.b\nif TYPE_CHECKING:\n    import c\ndef f():\n    from d import e\nimport_module('g.h')")
    assert set(imported(tree)) == {"a.b", "c", "d.e", "g.h"}
    assert set(imported(tree, at_load=True)) == {"a.b", "g.h"}
    with pytest.raises(ValueError, match="cycle"):
        load_order({"a": {"b"}, "b": {"a"}})
    assert "tests.architecture.imported" in imports_of(Path(__file__))
