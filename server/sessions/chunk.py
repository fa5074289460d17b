"""A chunk that is being made for a session. Owns what those who decode and send it must know."""

from __future__ import annotations

from dataclasses import dataclass

from server.sessions.input_buffer import Sample
from server.wire.protocol import Encoding


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkTicket:
    """A chunk being made for a session: where its `num_frames` pixel frames stand, and the input that made it."""

    world: str
    index: int
    chunk: int
    run: int
    run_frame: int
    num_frames: int
    generated: bool
    keep: bool
    encoding: Encoding
    jpeg_quality: int
    sample: Sample
    sampled_at: float
