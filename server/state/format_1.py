"""Stored sessions as they were before format 2. Owns the former key names; nothing else knows them."""

from __future__ import annotations

from typing import Any

PACE = {"speed": "_speed", "paused": "_paused", "num_steps": "_num_steps"}
FLOW_CONTROL = {
    "next_index": "_next_index",
    "next_chunk": "_next_chunk",
    "in_flight": "in_flight",
    "unacked_start": "_unacked_start",
}
"""Keys of format 2 → of format 1."""


def upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Return a stored session of format 1 in the form of format 2. Raise KeyError or TypeError."""
    session = content["session"]
    return {
        "format": 2,
        "fingerprint": content["fingerprint"],
        "session": {
            "generation": session["generation"],
            "encoding": session["encoding"],
            "pacing": session["pacing"],
            "receipts": session["_receipts"],
            "pace": {key: session[former] for key, former in PACE.items()},
            "flow_control": {key: session[former] for key, former in FLOW_CONTROL.items()},
            "run": session["run"],
            "input_buffer": session["mailbox"],
        },
        "state": content["state"],
        "frames": content["frames"],
    }
