"""Rollouts of a causal student under autograd, with the same rolling window as in serving.

One chunk loop for all causal methods that train on the student's own output (Self-Forcing, arXiv:2506.08009,
algorithm 1). No gradient crosses chunks: the exit stage of each chunk carries gradient, and a pass without gradient
writes its cache entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.methods.network import Network, predict_velocity
from distill.methods.sampling import randn_like
from world.model.config import TransformerConfig
from world.model.patterns import Banded, Continuation, KeyValue
from world.model.schedule import add_noise, euler_step, x0_from_velocity
from world.model.transformer import Conditioning


@dataclass(frozen=True, slots=True)
class RollingCache:
    """K/V of sink and window per layer, and the index of the next frame. Immutable: `push` returns a new cache."""

    config: TransformerConfig
    kv: list[KeyValue]
    next_frame: int

    @staticmethod
    @torch.no_grad()
    def prefill(
        network: Network, config: TransformerConfig, latents: Tensor, actions: Tensor, level: Tensor | None = None
    ) -> RollingCache:
        """Build the cache from context `b f c h w` at noise level `b f` (default: clean) and its actions `b f a`;
        f ≥ sink + window frames."""
        num_frames = latents.shape[1]
        level = latents.new_zeros(latents.shape[:2]) if level is None else level
        pattern = Banded(config, tuple(range(num_frames)))
        kv = network(latents, level, Conditioning(actions=actions), pattern=pattern).kv
        return RollingCache(config, [_trim(config, k, v) for k, v in kv], num_frames)

    def push(self, kv: list[KeyValue]) -> RollingCache:
        """Return the cache with one more committed chunk; chunks older than the window are dropped."""
        joined = [
            _trim(self.config, torch.cat([k, new_k.detach()], 1), torch.cat([v, new_v.detach()], 1))
            for (k, v), (new_k, new_v) in zip(self.kv, kv, strict=True)
        ]
        return RollingCache(self.config, joined, self.next_frame + self.config.chunk_frames)

    def pattern(self) -> Continuation:
        """Return the attention pattern of the next chunk."""
        return Continuation(self.config, self.kv, self.next_frame)


def _trim(config: TransformerConfig, k: Tensor, v: Tensor) -> KeyValue:
    sink = config.sink_frames * config.tokens_per_frame
    window = config.window_frames * config.tokens_per_frame
    if k.shape[1] <= sink + window:
        return k, v
    return torch.cat([k[:, :sink], k[:, -window:]], 1), torch.cat([v[:, :sink], v[:, -window:]], 1)


def context_frames(x0: Tensor, sigma: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return clean frames `b f c h w` noised to level sigma, as the cache is given them, and their levels `b f`."""
    level = x0.new_full(x0.shape[:2], sigma)
    return (add_noise(x0, randn_like(x0, generator), level) if sigma > 0 else x0), level


def self_rollout(
    network: Network,
    cache: RollingCache,
    actions: Tensor,
    sigmas: Tensor,
    exit_stage: int,
    generator: torch.Generator,
    *,
    grad_from: int = 0,
    renoise: bool = True,
    context_sigma: float = 0.0,
) -> Tensor:
    """Generate `b f c h w` after `cache` under `actions` `b f a`. sigmas: falling levels, ending in 0.

    Chunks before frame `grad_from` are denoised by all stages, as in serving, without gradient. Later chunks stop at
    `exit_stage` (the same for all, as in Self-Forcing); its x0 is the output and carries gradient, earlier stages do
    not; under `torch.no_grad` nothing does. renoise: between stages x0 is renoised; otherwise the velocity is followed,
    which students need that have not been through a few-step stage. context_sigma: the level that finished chunks are
    noised to before they are written into the cache.
    """
    config, with_grad = cache.config, torch.is_grad_enabled()
    dtype = torch.promote_types(cache.kv[0][0].dtype, torch.float32)
    outputs = []
    for first in range(0, actions.shape[1], config.chunk_frames):
        cond = Conditioning(actions=actions[:, first : first + config.chunk_frames])
        shape = (actions.shape[0], config.chunk_frames, config.channels, config.height, config.width)
        x = torch.randn(shape, generator=generator, dtype=dtype)
        last_stage = exit_stage if first >= grad_from else len(sigmas) - 2
        for stage in range(last_stage + 1):
            with torch.set_grad_enabled(with_grad and stage == exit_stage and first >= grad_from):
                level = sigmas[stage].to(dtype).expand(shape[:2])
                velocity = predict_velocity(network, x, level, cond, cache.pattern())
                x0 = x0_from_velocity(x, velocity, level)
            if stage < last_stage:
                after = sigmas[stage + 1].to(dtype).expand(shape[:2])
                x = add_noise(x0, randn_like(x, generator), after) if renoise else euler_step(x, velocity, level, after)
        outputs.append(x0)
        with torch.no_grad():
            finished, level = context_frames(x0.detach(), context_sigma, generator)
            committed = network(finished, level, cond, pattern=cache.pattern())
        cache = cache.push(committed.kv)
    return torch.cat(outputs, dim=1)
