"""Rollouts that continue from one training step to the next."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.data.latents import ClipSampler, typical_stretch
from distill.data.rollout_buffer import RolloutBuffer
from world.testing import PIXEL

LENGTH, ROWS = 40, 8


def save_streams(path: Path, *lengths: int) -> Path:
    """Write streams whose latent and action at frame t are both t."""
    times = [torch.arange(float(length)) for length in lengths]
    torch.save([(time[:, None, None, None].half(), time[:, None].half()) for time in times], path)
    return path


@pytest.mark.parametrize("sink", [0, 2])
def test_a_rollout_continues_from_its_own_frames_with_the_actions_of_its_clip(sink: int, tmp_path: Path) -> None:
    """This student outputs its action as the frame, so frames and actions must stay equal to the end."""
    config = replace(
        PIXEL[1], channels=1, height=1, width=1, num_buttons=1, num_axes=0, window_frames=4, sink_frames=sink
    )
    clips = ClipSampler(save_streams(tmp_path / "train.pt", 2000), LENGTH, still_share=0.0)
    rollouts = RolloutBuffer(config, clips, ROWS)
    generator = torch.Generator().manual_seed(0)
    context, former = sink + 4, torch.full((ROWS,), -1.0)
    first, ages, longest = torch.zeros(ROWS, sink), torch.zeros(ROWS), 0.0
    for number in range(60):
        num_new = 1 + number % 3
        past, actions = rollouts.next(num_new, generator)
        assert past.shape == (ROWS, context, 1, 1, 1)
        assert actions.shape == (ROWS, context + num_new, 1)
        assert torch.equal(past[..., 0, 0, 0], actions[:, :context, 0])
        last = past[:, -1, 0, 0, 0]
        continued = last == former
        assert torch.equal(past[continued, :sink, 0, 0, 0], first[continued]), (
            "the sink holds the rollout's first frames"
        )
        assert torch.equal(actions[:, sink:, 0].diff(dim=1), torch.ones(ROWS, 3 + num_new))
        first = past[:, :sink, 0, 0, 0]
        ages = torch.where(continued, ages, 0.0) + num_new
        longest = max(longest, float(ages.max()))
        rollouts.extend(actions[:, context:, :, None, None])
        former = actions[:, -1, 0]
    assert LENGTH - context - 8 <= longest <= LENGTH - context
    assert len(set(ages.tolist())) > ROWS // 2, "rollouts of many ages at the same time"


def test_rollouts_longer_than_the_clips_are_rejected(tmp_path: Path) -> None:
    assert typical_stretch(save_streams(tmp_path / "a.pt", 20, 400, 61)) == 60, "no action led to frame 0"
    clips = ClipSampler(tmp_path / "a.pt", 12)
    with pytest.raises(ValueError, match="leave no room for 9 after 5"):
        RolloutBuffer(replace(PIXEL[1], sink_frames=0, window_frames=5), clips, 2).next(
            9, torch.Generator().manual_seed(0)
        )
