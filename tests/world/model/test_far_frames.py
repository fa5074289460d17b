"""Invariant 3: frame one million behaves as frame one hundred; and the angles behind that are exact."""

from dataclasses import replace

import pytest
import torch

from kernels.norm_rope.reference import rope_reference
from tests.world.definitions import assert_within, context, random_actions, turned, turns
from world import RolloutState, World
from world.model.config import TransformerConfig
from world.model.rotary import RotaryAngles
from world.rollout.inputs import noise_seed
from world.testing import CONFIGS

NEAR = 100


def _moved(state: RolloutState, config: TransformerConfig, by_chunks: int) -> RolloutState:
    """The same session that many chunks later; the sink keeps its index, since it is always the first frames."""
    sink, rest = state.history_index[: config.sink_frames], state.history_index[config.sink_frames :]
    return replace(
        state,
        next_chunk=state.next_chunk + by_chunks,
        start_chunk=state.start_chunk + by_chunks,
        history_index=(*sink, *(i + by_chunks * config.chunk_frames for i in rest)),
    )


@pytest.mark.parametrize("far", [10**6, 10**9])
def test_far_frames_equal_near_ones(world: World, far: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = world.transformer.config
    frames, actions = context(world, seed=0)
    rollout = world.start(frames, actions, seed=5)
    for step in range(NEAR // config.chunk_frames):
        rollout.step_latents(random_actions(world, 1, step))
    state = rollout.snapshot(0, exact=False)
    assert min(state.history_index[config.sink_frames :]) > config.sink_frames + config.window_frames
    by_chunks = far // config.chunk_frames + 1
    assert by_chunks % (config.window_chunks + 1), "the ring should be at another position"

    def play(start: RolloutState, shift: int) -> torch.Tensor:
        monkeypatch.setattr(
            "world.rollout.inputs.noise_seed", lambda seed, chunk, stage: noise_seed(seed, chunk - shift, stage)
        )
        fresh = world.rollout(1)
        fresh.restore(0, start)
        return torch.cat([fresh.step_latents(random_actions(world, 1, 1000 + i)) for i in range(12)], 1)

    near, far_away = play(state, 0), play(_moved(state, config, by_chunks), by_chunks)
    assert_within(far_away, near, 1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frame", [0, 1, 100, 10**6 + 7, 10**9 + 7])
def test_rotary_angles_equal_complex_exponentials(config_name: str, frame: int, dtype: torch.dtype) -> None:
    config = CONFIGS[config_name][1]
    angles = RotaryAngles(config).to(dtype)(torch.tensor([[3, frame]]))  # for any dtype that the weights are cast to
    expected = torch.cat([turns(config, 3), turns(config, frame)])
    assert angles.cos.dtype is torch.float32
    assert_within(torch.complex(angles.cos, angles.sin)[0].to(torch.complex128), expected, 1e-6)


@pytest.mark.parametrize("frame", [0, 100, 10**6 + 7])
def test_rotated_queries_equal_complex_products(config_name: str, frame: int) -> None:
    config = CONFIGS[config_name][1]
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, config.tokens_per_frame, config.num_heads, config.head_dim, generator=generator)
    angles = RotaryAngles(config)(torch.tensor([[frame]]))
    expected = torch.view_as_real(turned(config, q, [frame])).flatten(-2)
    assert_within(rope_reference(q, angles.cos, angles.sin).double(), expected, 1e-6)
