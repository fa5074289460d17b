"""The committed page was built from its sources, and its message types match the server's; no check needs Node."""

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
    """Return the SHA-256 of every file at or below `entries`, by path relative to `root`."""
    tops = [root / entry for entry in entries]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*")) if file.is_file()]
    return {file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def recorded_hashes(part: str) -> dict[str, str]:
    """Return the recorded hashes of the "sources" or of the "built" files."""
    hashes: dict[str, str] = json.loads((WEB / "dist" / "build.json").read_text(encoding="utf-8"))[part]
    return hashes


def difference(recorded: dict[str, str], present: dict[str, str]) -> list[str]:
    """Return the paths that were added, removed or changed."""
    return sorted(path for path in recorded.keys() | present.keys() if recorded.get(path) != present.get(path))


def test_the_page_was_built_from_the_committed_sources() -> None:
    recorded = recorded_hashes("sources")
    assert "src/client.ts" in recorded, "clients/web/dist/build.json lists no sources"
    stale = difference(recorded, digests(WEB, {path.split("/")[0] for path in recorded}))
    assert not stale, f"changed since clients/web/dist was built: {stale}; {REBUILD}"


def test_the_built_files_are_unchanged_since_the_build() -> None:
    present = digests(WEB / "dist", {path.name for path in (WEB / "dist").iterdir() if path.name != "build.json"})
    assert "index.html" in present
    changed = difference(recorded_hashes("built"), present)
    assert not changed, f"edited by hand or left over in clients/web/dist: {changed}; {REBUILD}"


def test_the_page_fetches_nothing_from_other_hosts() -> None:
    """The built files contain no address of another host (the SVG namespace is a name, not an address)."""
    for file in (WEB / "dist").rglob("*"):
        if file.suffix in {".html", ".css", ".js"}:
            text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            addresses = [mark for mark in ("http://", "https://", 'src="//', "url(//") if mark in text]
            assert not addresses, f"{file.name} refers to another host: {addresses}"


def test_the_generated_message_types_are_current() -> None:
    result = subprocess.run(
        [sys.executable, str(WEB / "generate_protocol.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_lock_file_contains_no_registry_address() -> None:
    assert '"resolved"' not in (WEB / "package-lock.json").read_text(encoding="utf-8")
