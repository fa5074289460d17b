"""Log lines: one line per message, whatever a client put into it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from server.telemetry.log import session_key, set_up_logging


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level


@pytest.mark.parametrize("as_json", [False, True])
def test_a_message_cannot_begin_a_new_line(as_json: bool) -> None:
    stream = io.StringIO()
    set_up_logging("info", as_json=as_json, stream=stream)
    forged = "a\n2026-01-01 00:00:00 INFO forged\r\x1b[2J\u2028b"
    token = session_key.set(forged)  # the key of a ticket is its client's word
    logging.getLogger("test").info("refused: %s", forged)
    session_key.reset(token)
    (line,) = stream.getvalue().splitlines()
    shown = json.loads(line)["message"] if as_json else line
    assert "forged" in shown
    if not as_json:
        assert r"a\n2026" in shown
        assert r"\x1b[2J" in shown


def test_the_trace_of_an_exception_keeps_its_lines() -> None:
    stream = io.StringIO()
    set_up_logging("info", as_json=False, stream=stream)
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("test").exception("failed")
    assert stream.getvalue().count("\n") > 2
