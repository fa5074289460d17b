"""Redraw the pictures of imports in `docs/architecture.md`: `python -m tests.draw_architecture`."""

from __future__ import annotations

import re

from tests.architecture import ROOT, picture

DOCUMENT = ROOT / "docs" / "architecture.md"


def main() -> None:
    """Replace the flowchart below each package's heading by one drawn from its imports."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for package in ("server", "distill", "world"):
        drawn = f"<!-- rooms of {package} -->\n```mermaid\n{picture(ROOT / package)}\n```"
        text, count = re.subn(rf"<!-- rooms of {package} -->\n```mermaid\n.*?\n```", drawn, text, flags=re.DOTALL)
        assert count == 1, f"{DOCUMENT} has no flowchart for {package}"
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
