"""The committed page belongs to its sources, and its message types to the server's; neither check needs Node."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "clients" / "web"
REBUILD = "run `npm ci && npm run build` in clients/web and commit clients/web/dist"


def digests(root: Path, entries: set[str]) -> dict[str, str]:
    """The SHA-256 of every file at or below `entries`, by its path relative to `root`."""
    tops = [root / entry for entry in entries]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
    return {file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def record(part: str) -> dict[str, str]:
    """What the build wrote down: "sources" or "built"."""
    found: dict[str, str] = json.loads((WEB / "dist" / "build.json").read_text(encoding="utf-8"))[part]
    return found


def difference(recorded: dict[str, str], present: dict[str, str]) -> list[str]:
    """The paths that were added, removed or changed."""
    return sorted(path for path in recorded.keys() | present.keys() if recorded.get(path) != present.get(path))


def test_the_page_was_built_from_the_committed_sources() -> None:
    recorded = record("sources")
    assert "src/client.ts" in recorded, "clients/web/dist/build.json lists no sources"
    stale = difference(recorded, digests(WEB, {path.split("/")[0] for path in recorded}))
    assert not stale, f"changed since clients/web/dist was built: {stale}; {REBUILD}"


def test_the_built_files_are_as_the_build_wrote_them() -> None:
    present = digests(WEB / "dist", {path.name for path in (WEB / "dist").iterdir() if path.name != "build.json"})
    assert "index.html" in present
    changed = difference(record("built"), present)
    assert not changed, f"edited by hand or left over in clients/web/dist: {changed}; {REBUILD}"


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    """No address of another host is in what the browser loads (the SVG namespace is a name, not an address)."""
    for file in (WEB / "dist").rglob("*"):
        if file.suffix in {".html", ".css", ".js"}:
            text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            elsewhere = [mark for mark in ("http://", "https://", 'src="//', "url(//") if mark in text]
            assert not elsewhere, f"{file.name} refers to another host: {elsewhere}"


def test_the_message_types_are_the_servers() -> None:
    done = subprocess.run(
        [sys.executable, str(WEB / "generate_protocol.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (WEB / "package-lock.json").read_text(encoding="utf-8")
