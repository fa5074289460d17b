"""Mutation tests of the Triton kernels, one fault at a time: `python -m tests.kernels.mutations`.

Each place of a kernel where an operator below applies gives one mutant: the module is written with that one change and
the kernel's tests run on it in a separate process, since a wrong bound may crash it. A mutant that passes the tests is
compared with the original on a wide battery of inputs: if any output differs, the tests have missed it; if none does,
the change has no effect (a mask that another mask implies, an address that a stride of 0 hides …). Prints every mutant
that was not caught, and the share caught of those that change an output; exits with status 1 below 95 %.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ("norm_modulate", "qk_norm_rope_write", "ring_attention")
LIMIT_S = 300
OTHER_COMPARISON = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq}
OTHER_OPERATOR = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv}
OTHER_FUNCTION = {
    "maximum": "minimum",
    "minimum": "maximum",
    "sum": "max",
    "max": "sum",
    "exp2": "log2",
    "log2": "exp2",
}


@dataclass(frozen=True, slots=True)
class Mutant:
    kernel: str
    line: int
    what: str
    source: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """outcome: "caught", "missed" or "no effect"."""

    kernel: str
    line: int
    what: str
    outcome: str


def mutants(kernel: str) -> Iterator[Mutant]:
    """Yield all mutants of one kernel's module; only jit functions are changed."""
    tree = ast.parse((ROOT / "kernels" / kernel / "triton.py").read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    inside = {
        id(n) for f in nodes if isinstance(f, ast.FunctionDef) and _is_jit(f) for s in f.body for n in ast.walk(s)
    }
    for number, node in enumerate(nodes):
        if id(node) not in inside:
            continue
        for choice, (what, _) in enumerate(faults(copy.deepcopy(node))):
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[number]
            replacement = list(faults(target))[choice][1]
            mutated = ast.fix_missing_locations(_Replace(target, replacement).visit(changed))
            yield Mutant(kernel, getattr(node, "lineno", 0), what, ast.unparse(mutated) + "\n")


def faults(node: ast.AST) -> list[tuple[str, ast.AST]]:
    """Return (what is changed, the replacement node) for every operator that applies."""
    found: list[tuple[str, ast.AST]] = []

    def change(**fields: object) -> None:
        new = copy.copy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        found.append((f"{ast.unparse(node)}  →  {ast.unparse(ast.fix_missing_locations(new))}", new))

    def put(new: ast.AST) -> None:
        found.append((f"{ast.unparse(node)}  →  {ast.unparse(new)}", new))

    if isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER_COMPARISON:
        change(ops=[OTHER_COMPARISON[type(node.ops[0])]()])
    if isinstance(node, ast.BinOp):
        if type(node.op) in OTHER_OPERATOR:
            change(op=OTHER_OPERATOR[type(node.op)]())
        if isinstance(node.op, ast.Add | ast.Mult | ast.BitAnd):
            put(node.left)
            put(node.right)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        change(value=node.value + 1)
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name in OTHER_FUNCTION:
            change(func=ast.Attribute(node.func.value, OTHER_FUNCTION[name], ast.Load()))  # type: ignore[attr-defined]  # a named function is an attribute
        if any(keyword.arg == "mask" for keyword in node.keywords):
            change(keywords=[k for k in node.keywords if k.arg not in ("mask", "other")])
        if name == "where":
            put(node.args[1])
    if isinstance(node, ast.If | ast.IfExp):
        change(test=ast.UnaryOp(ast.Not(), node.test))
    changes = isinstance(node, ast.Assign | ast.AugAssign) and _reads_itself(node)
    if changes or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        found.append((f"{ast.unparse(node)}  →  left out", ast.Pass()))
    return [(what.replace("\n", " "), new) for what, new in found if ast.dump(new) != ast.dump(node)]


def _reads_itself(node: ast.Assign | ast.AugAssign) -> bool:
    """Return whether the statement updates an existing name, so that it can be removed."""
    if isinstance(node, ast.AugAssign):
        return True
    target = node.targets[0]
    read = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return isinstance(target, ast.Name) and target.id in read


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _is_jit(function: ast.FunctionDef) -> bool:
    return any("jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def tested(mutant: Mutant) -> Verdict:
    """Run the kernel's tests on the mutant and, if they pass, the battery."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("kernels", "tests/kernels"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "tests/conftest.py"):
            shutil.copy(ROOT / file, folder / file)
        (folder / "kernels" / mutant.kernel / "triton.py").write_text(mutant.source, encoding="utf-8")
        test = f"tests/kernels/test_{mutant.kernel}.py"
        if not _passes([sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test], folder):
            outcome = "caught"
        elif not _passes([sys.executable, "-m", "tests.kernels.battery", mutant.kernel, str(ROOT)], folder):
            outcome = "missed"
        else:
            outcome = "no effect"
    return Verdict(mutant.kernel, mutant.line, mutant.what, outcome)


def _passes(command: list[str], folder: Path) -> bool:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class StoredVerdicts:
    """`tested`, with verdicts stored in a file, one JSON object per line; valid for the present kernels and tests."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        sources = [*(ROOT / "kernels").rglob("*.py"), *(ROOT / "tests" / "kernels").glob("*.py")]
        self._tree = hashlib.sha256(b"".join(source.read_bytes() for source in sorted(sources))).hexdigest()
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self._known = {entry.pop("key"): Verdict(**entry) for entry in map(json.loads, lines)}

    def __call__(self, mutant: Mutant) -> Verdict:
        key = hashlib.sha256((self._tree + mutant.kernel + mutant.source).encode()).hexdigest()
        if key not in self._known:
            self._known[key] = tested(mutant)
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"key": key, **asdict(self._known[key])}) + "\n")
        return self._known[key]


def main() -> int:
    parser = argparse.ArgumentParser(description="put faults into the kernels and check whether the tests notice")
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=KERNELS)
    parser.add_argument("--every", type=int, default=1, help="only every n-th mutant, for a quick check")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kept", type=Path, help="file of verdicts, to resume an interrupted run")
    parser.add_argument("--json", action="store_true", help="print all verdicts as JSON")
    args = parser.parse_args()
    every = [mutant for kernel in args.kernels for mutant in mutants(kernel)][:: args.every]
    verdicts = []
    with ThreadPoolExecutor(args.processes) as pool:
        for verdict in pool.map(StoredVerdicts(args.kept), every):
            verdicts.append(verdict)
            if verdict.outcome != "caught":
                print(f"{verdict.kernel}:{verdict.line} {verdict.outcome}: {verdict.what}", file=sys.stderr, flush=True)
    counts = {kind: sum(v.outcome == kind for v in verdicts) for kind in ("caught", "missed", "no effect")}
    share = counts["caught"] / max(1, counts["caught"] + counts["missed"])
    if args.json:
        print(json.dumps({"counts": counts, "share": share, "mutants": [asdict(v) for v in verdicts]}, indent=1))
    else:
        print(f"{len(verdicts)} mutants: {counts}; caught of those that change an output: {share:.1%}")
    return 0 if share >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
