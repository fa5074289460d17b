"""Probes learn what can be learned and find nothing where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.data.environments.doom import Doom
from distill.evaluation.discriminator import accuracy, train_discriminator
from distill.evaluation.doom import FULL_CIRCLE, NUM_HEADINGS, full_turn, headings, intents, nearest
from distill.evaluation.inverse_dynamics import NEIGHBOURS, balanced_accuracy, train_inverse_dynamics
from distill.evaluation.quality import trivial_gains
from world.actions import Actions

SIZE = 32


def _sliding(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return clips `n 16 32 32 3` of a stripe that moves left, rests (mostly) or moves right, and labels `n 16 1`."""
    rng = np.random.default_rng(seed)
    frames, labels = np.full((num, 16, SIZE, SIZE, 3), 40, np.uint8), np.ones((num, 16, 1), np.int64)
    for clip in range(num):
        x = int(rng.integers(SIZE))
        for t in range(16):
            label = int(rng.choice(3, p=[0.15, 0.7, 0.15]))
            x = (x + 3 * (label - 1)) % SIZE
            labels[clip, t] = label
            frames[clip, t, :, x : x + 4] = 200
    return torch.from_numpy(frames), torch.from_numpy(labels)


def test_inverse_dynamics_recognises_motion_and_guesses_if_labels_are_meaningless() -> None:
    frames, labels = _sliding(24, seed=0)
    held_out, truth = _sliding(12, seed=1)
    network = train_inverse_dynamics(frames, labels, (3,), num_steps=80)
    assert balanced_accuracy(network, held_out, truth)[0] > 0.9
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))].roll(5, dims=1)
    guessing = train_inverse_dynamics(frames, mixed, (3,), num_steps=60)
    assert balanced_accuracy(guessing, held_out, truth)[0] == pytest.approx(1 / 3, abs=0.15)


def test_balanced_accuracy_of_a_constant_answer_is_chance() -> None:
    held_out, truth = _sliding(12, seed=1)

    class Rest(torch.nn.Module):
        heads = (None,)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [torch.tensor([0.0, 1.0, 0.0]).expand(len(x), 3)]

    scores = balanced_accuracy(Rest(), held_out, truth)  # type: ignore[arg-type]  # it has what balanced_accuracy uses
    assert scores == pytest.approx([1 / 3])
    assert NEIGHBOURS < 16 // 2


def test_the_discriminator_finds_a_difference_only_if_there_is_one() -> None:
    def clips(num: int, noise: float, seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        smooth = rng.integers(60, 190, (num, 1, 4, 4, 3)).repeat(8, 2).repeat(8, 3).repeat(6, 1)
        return torch.from_numpy(np.clip(smooth + rng.normal(0, noise, smooth.shape), 0, 255).astype(np.uint8))

    discriminator = train_discriminator(clips(24, 0, 0), clips(24, 20, 1), num_steps=40)
    assert accuracy(discriminator, clips(20, 0, 2), clips(20, 20, 3)) > 0.9
    same = train_discriminator(clips(24, 5, 0), clips(24, 5, 1), num_steps=40)
    assert accuracy(same, clips(30, 5, 2), clips(30, 5, 3)) == pytest.approx(0.5, abs=0.2)


def test_intents_combine_opposite_buttons_and_the_mouse() -> None:
    rows = [  # forward, back, left, right, look → turn, walk
        ((1, 0, 0, 0), 0.0, (1, 2)),
        ((1, 1, 0, 0), 0.0, (1, 1)),
        ((0, 1, 1, 0), 0.0, (0, 0)),
        ((0, 0, 1, 1), 0.0, (1, 1)),
        ((0, 0, 0, 0), 0.5, (2, 1)),
        ((0, 0, 0, 1), -1.0, (0, 1)),
        ((0, 0, 0, 0), 0.1, (1, 1)),
    ]
    buttons = torch.tensor([row[0] for row in rows]).bool()[None]
    axes = torch.tensor([[row[1]] for row in rows])[None]
    assert intents(Actions(buttons, axes))[0].tolist() == [list(row[2]) for row in rows]


def test_a_full_turn_of_the_real_game_ends_at_its_first_view() -> None:
    doom, rng = Doom(), np.random.default_rng(0)
    right = 0
    for trial in range(4):
        frames, buttons = full_turn(doom, 5, trial, rng)
        assert len(frames) == 5 + FULL_CIRCLE
        assert not buttons[:5].any()
        assert (buttons[5:].sum(axis=1) == 1).all()
        views = headings(frames[5:])
        assert len(views) == NUM_HEADINGS
        assert (views[-1] == frames[-1]).all()
        right += nearest(frames[4], views) == NUM_HEADINGS - 1
    assert right == 4


def test_gains_are_over_the_best_of_the_trivial_predictions() -> None:
    """Pictures that go from black to white: the last picture is best for near frames, the mean picture for far ones."""
    levels = torch.tensor([0, 1, 2, 3, 4, *([250] * 12)], dtype=torch.uint8)
    clip = levels[:, None, None, None].expand(17, 4, 4, 3)
    truth = clip[1:].expand(6, 16, 4, 4, 3).clone()
    last = clip[0].expand(6, 4, 4, 3)
    gains = trivial_gains(truth, last, truth, np.arange(6))
    assert gains["psnr_gain_trivial_4"]["against"] in ("last", "mean_colour")
    assert gains["psnr_gain_trivial_16"]["against"] == "mean_picture"
    ceiling = 10 * np.log10(255**2 / 0.05)
    assert gains["psnr_gain_trivial_4"]["mean"] == pytest.approx(ceiling - 10 * np.log10(255**2 / 16), abs=0.01)
