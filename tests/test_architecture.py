"""The house as drawn: which package may import which, no circles inside one, and no file that has grown too long."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

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

# Modules that decide without touching the world: what they must not import, so that time and threads come from outside.
PURE = {
    "world": {"asyncio", "fastapi", "socket", "threading", "websockets"},
    "server/engine/scheduler.py": {"asyncio", "threading", "time", "torch"},
    "server/sessions/session.py": {"asyncio", "fastapi", "socket", "threading", "torch", "websockets"},
    "server/wire/protocol.py": {"asyncio", "fastapi", "socket", "threading", "torch", "websockets"},
    "clients/python/lightcone_client": {"torch"},
}

MAX_LINES = 300
LONG = {
    "server/wire/protocol.py": "the whole wire in one file, each message with its fields explained",
}


def sources(top: Path) -> list[Path]:
    """The Python files of a package (or the one file), without what npm installed."""
    files = [top] if top.is_file() else sorted(top.rglob("*.py"))
    return [file for file in files if "node_modules" not in file.parts]


def imported(tree: ast.AST, *, at_load: bool = False) -> Iterator[str]:
    """Full names a module imports, `import_module("…")` included; `at_load`: only those that run when it is loaded."""
    for node in ast.iter_child_nodes(tree):
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if at_load and (deferred or typing_only):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: write the package's name"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
            yield from (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))
        yield from imported(node, at_load=at_load)


def tops(file: Path) -> set[str]:
    """The first parts of the names a file imports."""
    return {name.split(".")[0] for name in imported(ast.parse(file.read_text(encoding="utf-8")))}


def cycle_free_order(graph: dict[str, set[str]]) -> list[str]:
    """The modules, imported ones first. Raises graphlib.CycleError, which names the circle."""
    return list(TopologicalSorter(graph).static_order())


def module_graph(package: str) -> dict[str, set[str]]:
    """For each module of a package, the modules of the same package that loading it loads."""
    files = {
        ".".join(file.relative_to(FOLDERS[package].parent).with_suffix("").parts).removesuffix(".__init__"): file
        for file in sources(FOLDERS[package])
    }
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        found = set(imported(ast.parse(file.read_text(encoding="utf-8")), at_load=True))
        # `from a.b import c` reads as a.b.c: it loads a.b.c where that is a module, else a.b
        loaded = {full if full in files else full.rpartition(".")[0] for full in found}
        graph[name] = {other for other in loaded if other in files and other != name}
    return graph


@pytest.mark.parametrize("package", ARROWS)
def test_imports_point_one_way(package: str) -> None:
    files = sources(FOLDERS[package])
    assert files, f"{FOLDERS[package]} holds no Python file"
    for file in files:
        forbidden = tops(file) & (ARROWS.keys() - ARROWS[package] - {package})
        assert not forbidden, f"{file.relative_to(ROOT)} imports {forbidden}; {package} may import {ARROWS[package]}"


@pytest.mark.parametrize("package", ["kernels", "world", "distill", "server", "benchmarks", "lightcone_client"])
def test_no_circles_inside_a_package(package: str) -> None:
    graph = module_graph(package)
    assert set(cycle_free_order(graph)) == set(graph)


@pytest.mark.parametrize("place", PURE)
def test_pure_parts_import_no_clock_socket_or_thread(place: str) -> None:
    files = sources(ROOT / place)
    assert files, f"{place} is gone: mend this test's table"
    for file in files:
        assert not tops(file) & PURE[place], f"{file.relative_to(ROOT)} imports {tops(file) & PURE[place]}"


def test_files_stay_short() -> None:
    lengths = {
        file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for top in FOLDERS.values()
        for file in sources(top)
    }
    too_long = {path: lines for path, lines in lengths.items() if lines > MAX_LINES and path not in LONG}
    assert not too_long, f"split these, or give a reason in LONG: {too_long}"
    assert not [path for path in LONG if lengths.get(path, 0) <= MAX_LINES], "LONG names files that are short or gone"


def test_the_checks_see_what_they_should() -> None:
    tree = ast.parse("import a.b\nif TYPE_CHECKING:\n    import c\ndef f():\n    from d import e\nimport_module('g.h')")
    assert set(imported(tree)) == {"a.b", "c", "d.e", "g.h"}
    assert set(imported(tree, at_load=True)) == {"a.b", "g.h"}
    with pytest.raises(ValueError, match="cycle"):
        cycle_free_order({"a": {"b"}, "b": {"a"}})
