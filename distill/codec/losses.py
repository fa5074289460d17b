"""The codec's reconstruction loss. Owns its terms and weights; knows no task and no data.

L1 plus squared error, weighted where neighbouring frames differ, so that small moving things (a ball of two pixels)
count as much as the still picture; when only the decoder is trained, also around them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

TEXTURE_REACH = 6
"""Size in pixels of the neighbourhoods that `texture_weight` compares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecLossConfig:
    """Weights and noise of the codec's training.

    change_weight: added where neighbouring frames differ. near_weight: added within `near_reach` pixels of such a
    place. Without `near_weight`, a wrong bright pixel beside a moving thing would cost almost nothing; without
    `change_weight`, a small thing is left out wherever its position is in doubt.
    flicker_weight: weight of the change of the error between frames, so that still things are decoded still.
    foreground_weight: added where a frame differs from the background, so that small things at rest are not left out.
    edge_weight: weight of the change of the error between neighbouring pixels, so that edges and textures stay sharp.
    texture_weight: weight of the difference in local contrast, in space and in time, wherever in a neighbourhood the
    contrast is. The error alone prefers no texture to a slightly displaced one.
    tolerance: grey levels of error that cost nothing, since pictures are rounded.

    The defaults are for training encoder and decoder together. The encoder must first learn that small things exist,
    and weight around them teaches it to leave them out. The decoder alone is trained with all terms (`DECODER_LOSS`).
    """

    batch_size: int = 32
    change_weight: float = 60.0
    near_weight: float = 0.0
    near_reach: int = 6
    foreground_weight: float = 0.0
    flicker_weight: float = 0.0
    edge_weight: float = 0.0
    texture_weight: float = 0.0
    change_gain: float = 4.0
    tolerance: float = 0.0
    latent_noise: float = 0.2
    decoder_noise: float = 0.05
    statistics_momentum: float = 0.02


DECODER_LOSS = CodecLossConfig(near_weight=20.0, foreground_weight=20.0, flicker_weight=4.0, tolerance=0.3)


def reconstruction_loss(decoded: Tensor, frames: Tensor, background: Tensor, config: CodecLossConfig) -> Tensor:
    """Return the weighted sum of all terms for frames `b t 3 h w` and a background `3 h w`: L1 and squared error, the
    L1 of the error's change in time and space, and the difference in local contrast."""
    change = (frames[:, 1:] - frames[:, :-1]).abs().amax(dim=2)
    change = torch.cat([change[:, :1], change], dim=1)  # the first frame weighs what is about to change
    change = (change * config.change_gain).clamp(max=1.0)
    weight = 1 + config.change_weight * change
    if config.near_weight:
        reach = config.near_reach
        weight = weight + config.near_weight * nn.functional.max_pool2d(change, 2 * reach + 1, stride=1, padding=reach)
    if config.foreground_weight:
        foreground = ((frames - background).abs().amax(dim=2) * config.change_gain).clamp(max=1.0)
        weight = weight + config.foreground_weight * foreground
    error = nn.functional.softshrink(decoded - frames, config.tolerance / 127.5)
    flicker = (error[:, 1:] - error[:, :-1]).abs().mean()
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
    loss: Tensor = (weight[:, :, None] * (error.abs() + error.square())).mean()
    loss = loss + config.flicker_weight * flicker + config.edge_weight * edges
    if config.texture_weight:
        contrasts = zip(_local_contrast(decoded), _local_contrast(frames), strict=True)
        loss = loss + config.texture_weight * torch.stack([(a - b).abs().mean() for a, b in contrasts]).sum()
    return loss


def _local_contrast(frames: Tensor) -> list[Tensor]:
    """Return how much neighbouring pixels of frames `b t 3 h w` differ around each place: vertically, horizontally, and
    from frame to frame."""
    differences = [frames.diff(dim=dim).abs().flatten(0, 1) for dim in (3, 4, 1)]
    return [nn.functional.avg_pool2d(part, TEXTURE_REACH, stride=2) for part in differences]


def psnr_of(decoded: Tensor, frames: Tensor) -> float:
    """Return the peak signal-to-noise ratio in decibels; values lie in [−1, 1]."""
    return float(-10 * torch.log10((decoded.detach().float() - frames).square().mean() / 4))
