"""Draws and weights shared by the methods."""

import pytest
import torch

from distill.methods.sampling import faded, motion_weights


def test_fading_is_uniform_within_rows_or_columns_over_a_stretch_of_frames() -> None:
    clips = torch.ones(600, 7, 2, 4, 5)
    assert torch.equal(faded(clips, 0.0, torch.Generator().manual_seed(0)), clips)
    changed = from_first_frame = by_rows = 0
    for clip in faded(clips, 0.5, torch.Generator().manual_seed(0)):
        lost = clip < 1
        if not lost.any():
            continue
        changed += 1
        strength = clip[lost].unique()
        assert len(strength) == 1, "one strength per clip"
        assert 0.1 <= float(strength) < 1
        frames, rows, columns = (lost.any(dim=d) for d in ((1, 2, 3), (0, 1, 3), (0, 1, 2)))
        assert int(lost.sum()) == int(frames.sum()) * 2 * int(rows.sum()) * int(columns.sum()), "a block"
        assert rows.all() or columns.all()
        for line in (frames, rows, columns):
            inside = line.nonzero()
            assert len(inside) == int(inside[-1] - inside[0]) + 1, "a stretch"
        from_first_frame += bool(frames[0])
        by_rows += not rows.all()
    assert 250 < changed < 350
    assert 0.5 < from_first_frame / changed < 0.75
    assert 0.25 < by_rows / changed < 0.6


def test_motion_weights_are_larger_where_something_moves_and_average_to_one() -> None:
    x0 = torch.zeros(1, 4, 2, 3, 3)
    x0[0, 2, 1, 1, 1] = 5.0  # one position of frame 2, so frames 1 to 3 change there
    weights = motion_weights(x0, 8.0)
    assert weights.shape == (1, 4, 1, 3, 3)
    assert float(weights.mean()) == pytest.approx(1.0)
    ratio = weights / weights[0, 0, 0, 0, 0]
    assert ratio[0, :, 0, 1, 1].tolist() == pytest.approx([1.0, 9.0, 9.0, 9.0])
    assert int((ratio > 1.01).sum()) == 3
    assert torch.equal(motion_weights(torch.ones_like(x0), 8.0), torch.ones_like(weights))


def test_motion_weights_are_larger_for_resting_objects_too() -> None:
    x0 = torch.zeros(1, 3, 2, 3, 3)
    x0[0, :, 0, 2, 0], x0[0, :, 1, 0, 0] = -3.0, 0.5  # at rest; the second half as far from the background
    weights = motion_weights(x0, 8.0, 4.0)
    ratio = (weights / weights[0, 0, 0, 1, 1])[0, :, 0]
    assert ratio[:, 2, 0].tolist() == pytest.approx([5.0] * 3)
    assert ratio[:, 0, 0].tolist() == pytest.approx([3.0] * 3)
    assert int((ratio > 1.01).sum()) == 6
