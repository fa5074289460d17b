"""CausVid (arXiv:2412.07772): a causal student trained on a bidirectional teacher's scores. Pure functions.

As in diffusion forcing, the student denoises noised data, here at levels of its own grid; teacher and critic score the
clip of its predictions. It never sees its own output as context, which is what Self-Forcing changed.
"""

from __future__ import annotations

from torch import Tensor

from distill.methods.network import Network, predict_x0
from world.model.patterns import Banded
from world.model.schedule import add_noise, expand
from world.model.transformer import Conditioning


def causvid_samples(
    student: Network, x0: Tensor, noise: Tensor, sigma: Tensor, actions: Tensor, pattern: Banded
) -> Tensor:
    """Return the student's x0 of each frame, given the noised earlier frames (arXiv:2412.07772, algorithm 1).

    `b f c h w`; frames at sigma 0 (`b f`) are data and stay unchanged.
    """
    predicted = predict_x0(student, add_noise(x0, noise, sigma), sigma, Conditioning(actions=actions), pattern)
    return predicted.where(expand(sigma, x0).bool(), x0)
