"""The definition of chunks that are written into rings, each before it attends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.attention.ranges import ranges_attention


def write_attend_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    rows: Sequence[Tensor],
    *,
    q_sink: Tensor | None = None,
    num_sink: int = 0,
) -> Tensor:
    """Return attended values `b l n d` in the inputs' dtype; write to keys and values `s n f t d` (slot, head, frame,
    token) in place.

    q, k, v `b l n d`: consecutive chunks, as many as there are rows; normalised and rotated. rows: per chunk, int64
    `b·n·chunk_frames`, where its frames are written in keys viewed as `s·n·f t d`. A chunk sees all frames of its
    slot including itself, but not the chunks after it. q_sink `b l n d` replaces q for the first `num_sink` tokens.
    """
    frames, tokens, dim = keys.shape[2:]
    length = q.shape[1] // len(rows)
    parts = []
    for number, row in enumerate(rows):
        part = slice(number * length, (number + 1) * length)
        for cache, new in ((keys, k), (values, v)):
            cache.view(-1, tokens, dim)[row] = new[:, part].transpose(1, 2).reshape(-1, tokens, dim)
        slots = row.view(q.shape[0], -1)[:, 0] // (frames * q.shape[2])
        seen = [cache[slots].flatten(2, 3).transpose(1, 2) for cache in (keys, values)]  # b f·t n d
        sink = None if q_sink is None else q_sink[:, part]
        parts.append(ranges_attention(q[:, part], *seen, q_sink=sink, num_sink=num_sink))
    return torch.cat(parts, dim=1)
