"""Small worlds with random weights for tests. Owns two configs that must both work: the shipped shape and Wan's."""

from __future__ import annotations

import torch
from torch import nn

from world.actions import Actions
from world.card import Axis, Button, WorldCard
from world.checkpoint import World
from world.codecs.convolutional import ConvolutionalCodec, ConvolutionalCodecConfig
from world.model.config import TransformerConfig
from world.model.transformer import Transformer
from world.rollout.networks import Sampler
from world.starts import Start

PIXEL = (
    ConvolutionalCodecConfig(height=32, width=32, channels=4, widths=(8, 8, 8)),
    TransformerConfig(
        channels=4, height=2, width=2, dim=32, ffn_dim=48, num_layers=2, num_heads=2, num_buttons=2, window_frames=4
    ),
)
"""The shipped shape, small: one pixel frame per latent, one latent per chunk, no sink."""

WAN = (
    ConvolutionalCodecConfig(height=32, width=32, channels=4, widths=(8, 8, 8), temporal_patch=4),
    TransformerConfig(
        channels=4,
        height=2,
        width=2,
        dim=48,
        ffn_dim=64,
        num_layers=2,
        num_heads=2,
        num_buttons=2,
        num_axes=1,
        actions_per_frame=4,
        chunk_frames=3,
        window_frames=6,
        sink_frames=3,
        text_dim=16,
        num_text_tokens=4,
        full_qk_norm=True,
        learned_positions=False,
    ),
)
"""Wan's shape, small: chunks of 3 latents, a sink, 3-D rotary positions, cross-attention, 1 + 4k frames to 1 + k
latents."""

CONFIGS = {"pixel": PIXEL, "wan": WAN}


def tiny_transformer(config: TransformerConfig, seed: int = 0) -> Transformer:
    """Return a network with random weights, even where training starts from zero, so that every input matters."""
    torch.manual_seed(seed)
    network = Transformer(config)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return network.eval()


def tiny_world(
    seed: int = 0, config: str = "pixel", *, dtype: torch.dtype = torch.float32, num_steps: int = 2
) -> World:
    """Return a World with random weights, fast on a CPU. Its picture moves and changes with the action."""
    codec_config, transformer_config = CONFIGS[config]
    transformer = tiny_transformer(transformer_config, seed)
    codec = ConvolutionalCodec(codec_config)
    buttons = (
        Button(name="up", label="Up", keys=("ArrowUp", "KeyW")),
        Button(name="down", label="Down", keys=("ArrowDown", "KeyS")),
    )
    axes = tuple(
        Axis(name=f"axis{i}", label=f"Axis {i}", low=-1, high=1, source=source)
        for i, source in zip(range(transformer_config.num_axes), ("mouse_x", "mouse_y"), strict=False)
    )
    card = WorldCard(
        name=f"tiny-{config}",
        title="Tiny",
        description="Random weights, for tests.",
        fps=30.0,
        height=codec_config.height,
        width=codec_config.width,
        buttons=buttons,
        axes=axes,
        chunk_frames=transformer_config.chunk_frames,
        window=transformer_config.window_frames,
        sink=transformer_config.sink_frames,
        num_steps=num_steps,
        pixelated=config == "pixel",
        data_license="CC0-1.0",
    )
    world = World(card, codec, transformer, Sampler(num_steps=num_steps), dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    for number in range(2):
        shape = (world.context_pixel_frames, codec_config.height, codec_config.width, 3)
        frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        actions = Actions.none(1, world.context_pixel_frames, 2, transformer_config.num_axes)
        world.starts.append(Start(f"noise {number}", frames, actions))
    return world
