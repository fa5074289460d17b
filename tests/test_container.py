"""The container recipe: no engine builds it in the tests, so its text is linted and held against the repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def stages() -> dict[str, list[str]]:
    """The instructions of each named stage, continuation lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"FROM (\S+) AS (\S+)", line):
            found[match[2]] = list(found.get(match[1], []))  # a stage inherits what it stands on
            current = found[match[2]]
        elif found and line and not line.startswith("#"):
            current.append(line)
    return found


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed (it comes with `make develop`)")
def test_the_linter_finds_nothing() -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_targets_run_as_an_ordinary_user_and_report_their_health(target: str) -> None:
    lines = stages()[target]
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 10001"
    assert any(line.startswith("HEALTHCHECK") and "/healthz" in line for line in lines)
    assert 'CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]' in lines


def test_everything_copied_is_in_the_repository() -> None:
    build = stages()["build"]
    copied = [word for line in build if line.startswith("COPY") for word in line.split()[1:-1]]
    assert len(copied) > 5
    assert not [path for path in copied if not (ROOT / path).exists()]


def test_every_package_is_copied() -> None:
    """A package that pyproject.toml installs and the image lacks would break the install or the command line."""
    copied = {word for line in stages()["build"] if line.startswith("COPY") for word in line.split()[1:-1]}
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py") if file.parent.name != "tests"}
    assert packages <= copied
