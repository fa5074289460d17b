"""Ring positions against a ring implemented as a plain list."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from world.errors import PatternError
from world.rollout.cache import Arena, ArenaPattern
from world.testing import CONFIGS

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2), st.integers(1, 60))


@given(shapes)
def test_a_ring_holds_exactly_the_sink_and_the_newest_chunks(shape: tuple[int, int, int, int]) -> None:
    chunk, window, sink, num_chunks = shape
    config = replace(
        CONFIGS["pixel"][1], chunk_frames=chunk, window_frames=window * chunk, sink_frames=sink * chunk, num_layers=1
    )
    arena = Arena(config, 1, dtype=torch.float32)
    assert config.context_frames == (sink + window + 1) * chunk
    held: dict[int, int] = {}
    for index in range(num_chunks):
        positions = arena.rings.frame_positions(torch.tensor([index]))[0].tolist()
        rows = arena.rings.rows(torch.tensor([0, 2]), torch.tensor([index, 3])).tolist()
        assert arena.rings.row_numbers([0, 2], [index, 3]) == rows, "the same numbers without tensors"
        assert positions == list(range(positions[0], positions[0] + chunk)), "a chunk's frames are contiguous"
        assert positions[-1] < config.context_frames
        held |= dict.fromkeys(positions, index)
        first_sinks = range(min(sink, index + 1))
        newest = range(max(sink, index - window), index + 1)
        assert sorted(set(held.values())) == [*first_sinks, *newest]


def test_a_sequence_of_another_length_is_rejected() -> None:
    arena = Arena(CONFIGS["pixel"][1], 1, dtype=torch.float32)
    pattern = ArenaPattern.of(arena, [0], [7], num_chunks=2)
    with pytest.raises(PatternError, match="2 chunks of"):
        pattern.positions(1, arena.config.chunk_frames, torch.device("cpu"))
