"""What the checks of the architecture read: files, imports and the rooms they belong to."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def sources(top: Path) -> list[Path]:
    """Return the Python files of a folder (or the one file), without installed Node packages."""
    files = [top] if top.is_file() else sorted(top.rglob("*.py"))
    return [file for file in files if "node_modules" not in file.parts]


def imported(tree: ast.AST, *, at_load: bool = False) -> Iterator[str]:
    """Yield the full names that a module imports, `import_module("…")` included.

    at_load: only those imported when the module is loaded, neither in functions nor for type checking.
    """
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


def imports_of(file: Path, *, at_load: bool = False) -> set[str]:
    """Return the full names that a file imports."""
    return set(imported(ast.parse(file.read_text(encoding="utf-8")), at_load=at_load))


def packages_of(file: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    return {name.split(".")[0] for name in imports_of(file)}


def modules(folder: Path) -> dict[str, Path]:
    """Return the modules of a top-level package by their full name."""
    return {
        ".".join(file.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): file
        for file in sources(folder)
    }


def module_graph(folder: Path) -> dict[str, set[str]]:
    """Return, for each module of a package, the modules of the same package that loading it loads."""
    files = modules(folder)
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        # `from a.b import c` reads as a.b.c: it loads a.b.c if that is a module, else a.b
        loaded = {full if full in files else full.rpartition(".")[0] for full in imports_of(file, at_load=True)}
        graph[name] = {other for other in loaded if other in files and other != name}
    return graph


def load_order(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules, imported ones first. Raises graphlib.CycleError, which names the circle."""
    return list(TopologicalSorter(graph).static_order())


def room_of(module: str) -> str:
    """Return the room of a module's full name: the part after the package's; "" for the package itself."""
    return [*module.split("."), ""][1]


def arrows_up(folder: Path, floors: list[list[str]]) -> list[str]:
    """Return every import, type-only ones included, of a room that is not on a lower floor than the importing one.

    floors: rooms (sub-packages or modules of the package), the lowest floor first. The package's own `__init__` may
    import any room. Raises KeyError for a room that is on no floor.
    """
    level = {room: number for number, rooms in enumerate(floors) for room in rooms}
    files = modules(folder)
    package, found = folder.name, []
    for name, file in files.items():
        own = room_of(name)
        if not own:
            continue
        for full in sorted(imports_of(file)):
            other = room_of(full) if full.split(".")[0] == package else ""
            if other and other != own and level[other] >= level[own]:
                found.append(f"{file.relative_to(folder.parent)} imports {full}")
        level[own]  # every room has its floor
    return found


def private_imports(file: Path) -> list[str]:
    """Return the private names (`_x`) that a file imports from other modules of this project."""
    own = {"benchmarks", "distill", "examples", "kernels", "lightcone", "lightcone_client", "server", "tests", "world"}
    return [
        full
        for full in sorted(imports_of(file))
        if full.split(".")[0] in own and any(part.startswith("_") and part != "__future__" for part in full.split("."))
    ]


def room_arrows(folder: Path) -> dict[str, set[str]]:
    """Return, for each room of a package, the other rooms of the package that it imports."""
    files = modules(folder)
    arrows: dict[str, set[str]] = {}
    for name, file in files.items():
        if own := room_of(name):
            others = {room_of(full) for full in imports_of(file) if full.split(".")[0] == folder.name}
            arrows.setdefault(own, set()).update(others - {own, ""})
    return arrows


def without_implied(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """Drop every arrow that a longer way already implies (transitive reduction). Raises CycleError on a circle."""
    below: dict[str, set[str]] = {}
    for room in TopologicalSorter(arrows).static_order():
        direct = arrows.get(room, set())
        below[room] = direct.union(*(below[other] for other in direct)) if direct else set()
    return {room: {one for one in to if not any(one in below[other] for other in to)} for room, to in arrows.items()}


def picture(folder: Path) -> str:
    """Return a Mermaid flowchart of a package's rooms; arrows that a longer way implies are left out."""
    arrows = without_implied(room_arrows(folder))
    lines = [f"    {room} --> {other}" for room in sorted(arrows) for other in sorted(arrows[room])]
    return "\n".join(["flowchart TD", *lines])
