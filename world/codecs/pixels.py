"""Pixel formats: uint8 frames as stored and shown, float frames as codecs take them. Pure functions."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor


def to_float(frames: Tensor) -> Tensor:
    """Convert uint8 `b t h w 3` to float32 `b t 3 h w` in [−1, 1]."""
    return rearrange(frames, "b t h w c -> b t c h w").to(torch.float32) / 127.5 - 1.0


def to_uint8(frames: Tensor) -> Tensor:
    """Convert float `b t 3 h w` in [−1, 1] to uint8 `b t h w 3`."""
    scaled = frames.float().add(1.0).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return rearrange(scaled, "b t c h w -> b t h w c").contiguous()
