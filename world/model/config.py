"""The shape of a transformer. Owns the frozen config; builds nothing."""

from __future__ import annotations

from dataclasses import dataclass

from world.errors import ShapeError
from world.numbers import checked, checked_count


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """One transformer for teacher, critic and student.

    Latents are `channels × height × width` per frame, cut into `patch × patch` tokens. `chunk_frames` latent frames
    are denoised together and see each other; a chunk sees the `window_frames` frames before it and the stream's first
    `sink_frames`. Window and sink are whole chunks. flow_map: the network also takes the level that a step leads to
    (`sigma_next`), for students that learn mean velocities (MeanFlow, arXiv:2505.13447).
    """

    channels: int
    height: int
    width: int
    dim: int = 192
    ffn_dim: int = 576
    num_layers: int = 6
    num_heads: int = 3
    patch: int = 1
    num_buttons: int = 0
    num_axes: int = 0
    actions_per_frame: int = 1
    chunk_frames: int = 1
    window_frames: int = 15
    sink_frames: int = 0
    text_dim: int = 0
    num_text_tokens: int = 0
    full_qk_norm: bool = False
    learned_positions: bool = True
    frequency_dim: int = 256
    rope_base: float = 10000.0
    flow_map: bool = False

    def __post_init__(self) -> None:
        for name in ("channels", "height", "width", "dim", "ffn_dim", "num_layers", "num_heads", "patch"):
            checked_count(getattr(self, name), name)
        for name in ("actions_per_frame", "chunk_frames", "frequency_dim"):
            checked_count(getattr(self, name), name)
        for name in ("num_buttons", "num_axes", "window_frames", "sink_frames", "text_dim", "num_text_tokens"):
            checked_count(getattr(self, name), name, 0)
        checked(self.rope_base, "rope_base", 1.0)
        if self.dim % self.num_heads or self.head_dim % 2:
            raise ShapeError(f"dim {self.dim} must split into {self.num_heads} heads of even width")
        if self.height % self.patch or self.width % self.patch:
            raise ShapeError(f"latents of {self.height}x{self.width} do not split into {self.patch}-patches")
        if self.window_frames % self.chunk_frames or self.sink_frames % self.chunk_frames:
            raise ShapeError(
                f"window {self.window_frames} and sink {self.sink_frames} must be multiples "
                f"of chunk {self.chunk_frames}"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def tokens_per_frame(self) -> int:
        return (self.height // self.patch) * (self.width // self.patch)

    @property
    def patch_dim(self) -> int:
        return self.channels * self.patch * self.patch

    @property
    def action_dim(self) -> int:
        """Width of one latent frame's action vector: buttons and axes of each of its pixel frames, concatenated."""
        return self.actions_per_frame * (self.num_buttons + self.num_axes)

    @property
    def window_chunks(self) -> int:
        return self.window_frames // self.chunk_frames

    @property
    def sink_chunks(self) -> int:
        return self.sink_frames // self.chunk_frames

    @property
    def context_frames(self) -> int:
        """Latent frames a rollout starts from: sink, window and the chunk that the first step commits."""
        return self.sink_frames + self.window_frames + self.chunk_frames
