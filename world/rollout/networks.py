"""A world's networks ready for inference: codec, transformer and sampler on one device. Owns what a rollout needs of a
world; knows no files, no start contexts and no sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kernels.dispatch import KernelChoice
from kernels.linear import pack_linears
from world.actions import Actions
from world.card import WorldCard
from world.codecs.codec import Codec, CodecState
from world.codecs.pixels import to_float, to_uint8
from world.errors import ActionError
from world.model.schedule import add_noise, euler_step, sampling_levels, sampling_sigmas, x0_from_velocity
from world.model.transformer import Conditioning, Output, Transformer
from world.numbers import checked, checked_count
from world.rollout.cache import ArenaPattern
from world.rollout.step_threads import ThreadSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """How the student denoises: `num_steps` levels from 1, shifted; clean chunks are committed at `context_sigma`.

    renoise: between levels, add fresh noise to the predicted x0 (what few-step students are trained for); otherwise
    take Euler steps along the ODE (for students that have not been through a few-step stage).
    """

    num_steps: int = 2
    shift: float = 6.0
    context_sigma: float = 0.0
    renoise: bool = True

    def __post_init__(self) -> None:
        checked_count(self.num_steps, "num_steps", 1, 1000)
        checked(self.shift, "shift", 1e-3, 1e3)
        checked(self.context_sigma, "context_sigma", 0.0, 1.0)


class CompiledNetwork(Protocol):
    """The transformer as machine code for some shapes of a pass over an arena, without text."""

    def fits(self, batch: int, num_chunks: int) -> bool:
        """Return whether there is code for this number of slots and of chunks per slot."""
        ...

    def __call__(self, x: Tensor, sigma: Tensor, cond: Conditioning, *, pattern: ArenaPattern) -> Output:
        """Compute what the transformer would."""
        ...


class Model:
    """Codec, transformer and sampler, in `dtype` on `device`; moves the given modules there.

    compiled: the transformer as machine code, if there is any and it is to be used. kernel_choice: which of the
    equivalent kernels this model's rollouts use. threads: how many threads their steps use. All three are set from
    outside (`world.runtime.tuning`), before a rollout is made.
    """

    def __init__(
        self,
        card: WorldCard,
        codec: Codec,
        transformer: Transformer,
        sampler: Sampler,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.card = card
        self.codec: Codec = codec.to(device, dtype).eval()
        self.codec.channels_last()
        self.transformer = transformer.to(device, dtype).eval()
        pack_linears(self.transformer, rows=transformer.config.chunk_frames * transformer.config.tokens_per_frame)
        self.compiled: CompiledNetwork | None = None
        self.kernel_choice = KernelChoice()
        self.threads = ThreadSettings()
        self.sampler = sampler
        self.dtype = dtype
        self.device = torch.device(device)
        self._levels_of: dict[Sampler, tuple[Tensor, ...]] = {}

    def network(self, num_slots: int, num_chunks: int) -> Transformer | CompiledNetwork:
        """Return the transformer for a pass of this shape: the compiled one if it fits."""
        compiled = self.compiled
        return compiled if compiled is not None and compiled.fits(num_slots, num_chunks) else self.transformer

    @property
    def forward_calls(self) -> int:
        """How often the transformer has been called."""
        return self.transformer.forward_calls

    @property
    def sigmas(self) -> Tensor:
        """The student's noise levels, from 1 to 0: float64 `num_steps + 1`."""
        return sampling_sigmas(self.sampler.num_steps, self.sampler.shift)

    @property
    def levels(self) -> tuple[float, ...]:
        """`sigmas` as numbers."""
        return sampling_levels(self.sampler.num_steps, self.sampler.shift)

    @property
    def context_sigma(self) -> float:
        return self.sampler.context_sigma

    @property
    def context_pixel_frames(self) -> int:
        """Pixel frames a rollout starts from."""
        return self.codec.first_frames + (self.transformer.config.context_frames - 1) * self.codec.temporal_patch

    @property
    def chunk_pixel_frames(self) -> int:
        """Pixel frames of one step."""
        return self.transformer.config.chunk_frames * self.codec.temporal_patch

    def denoised(self, x: Tensor, velocity: Tensor, stage: int, noise: Callable[[int], Tensor]) -> Tensor:
        """Return the next stage's input, or x0 after the last stage, from a stage's input and velocity. noise: returns
        the fresh noise of a stage, for samplers that renoise."""
        sigma, sigma_next = self._level_tensors()[stage : stage + 2]
        if not self.sampler.renoise:
            return euler_step(x, velocity, sigma, sigma_next)
        x0 = x0_from_velocity(x, velocity, sigma)
        is_last = stage + 1 == self.sampler.num_steps
        return x0 if is_last else add_noise(x0, noise(stage + 1), sigma_next)

    def _level_tensors(self) -> tuple[Tensor, ...]:
        """Return `levels` on the device, made once for each sampler: a copy to a GPU would wait for it."""
        if self.sampler not in self._levels_of:
            with torch.inference_mode(False):  # so that they can be used in every mode
                tensors = tuple(torch.tensor(level, device=self.device) for level in self.levels)
            self._levels_of[self.sampler] = tensors
        return self._levels_of[self.sampler]

    def check_actions(self, actions: Actions) -> None:
        """Raise ActionError unless the columns are this world's buttons and axes."""
        got = (actions.buttons.shape[2], actions.axes.shape[2])
        expected = (len(self.card.buttons), len(self.card.axes))
        if got != expected:
            raise ActionError(f"actions have {got} buttons and axes; {self.card.name} has {expected}")

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> tuple[Tensor, CodecState]:
        """Encode uint8 `b t h w 3` from a stream's start → latents `b n c h w` float32, and the codec's state."""
        latents, state = self.codec.encode(to_float(frames.to(self.device)).to(self.dtype))
        return latents.float(), state

    @torch.inference_mode()
    def encoding(self, frames: Tensor, num_latents: int) -> Generator[None, None, tuple[Tensor, CodecState]]:
        """Do what `encode` does in parts of `num_latents` latents."""
        latents, state = yield from self.codec.encoding(to_float(frames.to(self.device)).to(self.dtype), num_latents)
        return latents.float(), state

    @torch.inference_mode()
    def decode(self, latents: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """Decode latents `b n c h w` that follow `state` → uint8 `b t h w 3`, and the new state."""
        frames, state = self.codec.decode(latents.to(self.dtype), state)
        return to_uint8(frames), state
