"""CausVid (arXiv:2412.07772): asymmetric distillation, a causal student against a bidirectional teacher's scores. Pure
functions.

The student answers for noised data, as in diffusion forcing, at levels of its own grid; the clip of its answers is what
teacher and critic judge. It never sees its own output as context, which is what Self-Forcing changed.
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
    """The student's answer for each frame, given the noised frames before it (arXiv:2412.07772, algorithm 1): `b f c h
    w`; frames at sigma 0 (`b f`) are data and stay as they are."""
    answer = predict_x0(student, add_noise(x0, noise, sigma), sigma, Conditioning(actions=actions), pattern)
    return answer.where(expand(sigma, x0).bool(), x0)
