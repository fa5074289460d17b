"""docs/protocol.md is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.errors import CloseCode, ErrorCode
from server.wire.protocol import PROTOCOL_VERSION, json_schema
from tests.server.dump import lines

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`\"?([a-z_]+)\"?`", PAGE))
MODELS = json_schema()["$defs"]


@pytest.mark.parametrize("model", [name for name, model in MODELS.items() if "properties" in model])
def test_every_message_and_field_is_explained(model: str) -> None:
    properties = MODELS[model]["properties"]
    assert set(properties) <= NAMED
    for name in ("type", "command"):
        if "const" in properties.get(name, {}):
            assert properties[name]["const"] in NAMED


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_has_a_row(code: ErrorCode) -> None:
    assert f"\n| `{code}` |" in PAGE


@pytest.mark.parametrize("code", list(CloseCode))
def test_every_close_code_is_explained(code: CloseCode) -> None:
    assert str(int(code)) in PAGE


def test_the_example_is_what_its_command_prints() -> None:
    assert "\n".join(lines()) in PAGE


def test_the_title_names_the_version() -> None:
    assert f"version {PROTOCOL_VERSION}\n" in PAGE
