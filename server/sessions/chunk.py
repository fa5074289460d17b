"""A chunk that is being generated for a session. Owns what decoding and sending it need to know."""

from __future__ import annotations

from dataclasses import dataclass

from server.sessions.input_buffer import Sample
from server.wire.protocol import Encoding


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkTicket:
    """A chunk being generated: the numbers of its `num_frames` pixel frames, and the input it was generated with."""

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
