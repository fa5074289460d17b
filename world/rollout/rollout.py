"""Many sessions generated together, chunk by chunk. Owns noise, the two-pass step and going back.

A step of some slots is one batched forward pass per denoising stage. The first of them also commits the chunk before:
its sequence is [clean chunk i−1; noisy chunk i], and in each layer the clean chunk writes its K/V and attends before
the noisy one does. Noise is a function of (seed, chunk, stage) alone. Knows no sockets, files or clocks.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from world.actions import Actions
from world.errors import ShapeError
from world.model.transformer import Conditioning
from world.rollout.cache import ArenaPattern
from world.rollout.decode_stream import DecodeStream
from world.rollout.inputs import action_vectors, check_context, chunk_noise, chunk_vectors, fit_context
from world.rollout.networks import Model
from world.rollout.parts import in_parts, run_to_end
from world.rollout.passes import StaticPasses, pass_input
from world.rollout.replay import codec_state_after, history_frames, split_record
from world.rollout.slots import Slots
from world.rollout.timeline import KV_CHECKPOINT_CHUNKS, RolloutState, Slot, stacked

Frames = Tensor | NDArray[np.uint8]


class Rollout(Slots):
    """`num_slots` sessions of one world. One thread owns it; another may decode meanwhile (`world.rollout.ownership`).

    timeline_chunks: how many chunks `rewind` can go back at least; costs one K/V copy per slot every
    `KV_CHECKPOINT_CHUNKS` chunks. static: whether passes run in static buffers, on a GPU as captured graphs (default:
    on a GPU). int8_cache: store K/V in 8 bits, for more sessions in the same memory (docs/kernels.md has the cost).
    """

    def __init__(
        self,
        model: Model,
        num_slots: int,
        *,
        timeline_chunks: int = 0,
        static: bool | None = None,
        int8_cache: bool = False,
    ) -> None:
        super().__init__(model, num_slots, timeline_chunks=timeline_chunks, int8_cache=int8_cache)
        static = model.device.type == "cuda" if static is None else static
        self._decode_stream = DecodeStream(model.device)
        self._static = StaticPasses(model.transformer, self.arena, self._prompts) if static else None

    def start(
        self,
        slots: Sequence[int],
        frames: Frames,
        actions: Actions,
        seeds: Sequence[int],
        texts: Sequence[Tensor | None] | None = None,
    ) -> None:
        """Fill slots from real context: frames uint8 `b t h w 3`, actions `b t`; texts: for worlds that take text, each
        slot's token embeddings `l text_dim`, or None.

        If t is less than the world's context, the first frame is repeated in front with no action; if more, the last
        frames are used. Raises ShapeError if the shapes do not fit the world.
        """
        run_to_end(self.starting(slots, frames, actions, seeds, texts, num_frames=self.config.context_frames))

    @in_parts
    def starting(
        self,
        slots: Sequence[int],
        frames: Frames,
        actions: Actions,
        seeds: Sequence[int],
        texts: Sequence[Tensor | None] | None = None,
        *,
        num_frames: int | None = None,
    ) -> Generator[None, None, None]:
        """Start in parts of `num_frames` latent frames, by default no longer than a step. The slots must not be used
        before the generator has ended."""
        self.ownership.assert_owner()
        texts = texts or [None] * len(slots)
        pixels = frames if isinstance(frames, Tensor) else torch.tensor(frames)  # a copy: the array may be read-only
        self._check_slots(slots)
        check_context(self.model, slots, pixels, actions, seeds)
        if len(texts) != len(slots):
            raise ShapeError(f"{len(texts)} texts do not fit slots {list(slots)}: give one, or None, for each")
        for text in texts:
            self._prompts.check(text)
        pixels, actions = fit_context(pixels, actions, self.model.context_pixel_frames)
        latents, codec_state = yield from self.model.encoding(pixels, num_frames or self.config.chunk_frames)
        codec = self.model.codec
        vectors = action_vectors(actions, codec.temporal_patch, codec.first_frames).to(self.model.device)
        first = latents.shape[1] // self.config.chunk_frames
        for row, slot in enumerate(slots):
            record = [(i, latents[row, i], vectors[row, i]) for i in range(latents.shape[1])]
            sink, recent = split_record(self.config, record, self.timeline_chunks)
            codec_row = {name: value[row : row + 1].clone() for name, value in codec_state.items()}
            state = Slot(int(seeds[row]), first, first, sink, recent, codec_row, texts[row])
            yield
            yield from self._putting(slot, state, num_frames=num_frames)

    @torch.inference_mode()
    def step_latents(self, actions: Actions, slots: Sequence[int] | None = None) -> Tensor:
        """Generate each slot's next chunk: actions `b f` (f = the chunk's pixel frames, or 1 to hold one action) →
        latents `b chunk c h w`, float32."""
        self.ownership.assert_owner()
        slots = self._resolve(slots)
        with self.threads.step(len(slots)):
            states = [self._slots[slot] for slot in slots]
            vectors = chunk_vectors(self.model, actions, len(slots))
            x = self._noise(states, 0)
            for stage in range(self.model.sampler.num_steps):
                velocity = self._pass(stage, x, vectors, slots, states)
                x = self.model.denoised(x, velocity, stage, lambda following: self._noise(states, following))
            x = self.model.codec.advance_state_channels(torch.stack([state.recent[-1][1] for state in states]), x)
            self._advance(slots, states, x, vectors)
            ready = self._decode_stream.mark()
            for state in states:
                state.ready = ready
            return x

    def _pass(self, stage: int, x: Tensor, vectors: Tensor, slots: list[int], states: list[Slot]) -> Tensor:
        """Return the velocity of the noisy chunks x; the first stage's pass also commits the chunks before."""
        inputs, num_chunks = pass_input(self.model, stage, x, vectors, slots, states)
        if self._static is not None:
            return self._static(inputs, num_chunks)[:, -self.config.chunk_frames :]
        first_chunks = [state.next_chunk + 1 - num_chunks for state in states]
        pattern = ArenaPattern.of(self.arena, slots, first_chunks, num_chunks, on_layer=self.threads.check)
        text = self._prompts.of(slots)
        network = self.model.network(len(slots), num_chunks) if text is None else self.model.transformer
        output = network(inputs.x, inputs.sigma, Conditioning(actions=inputs.actions, text=text), pattern=pattern)
        velocity: Tensor = output.prediction[:, -self.config.chunk_frames :].float()
        return velocity

    @torch.inference_mode()
    def decode(
        self, latents: Tensor, slots: Sequence[int] | None = None, ready: torch.cuda.Event | None = None
    ) -> Tensor:
        """Decode the slots' newest chunk, latents `b chunk c h w` → uint8 `b f h w 3`, and advance the codec's state.
        Another thread may call this while the next chunks are generated; on a GPU it passes what `ready` returned after
        the step that made the latents, or it waits for the slots' newest steps."""
        chosen = self._resolve(slots)
        with self.ownership.decoding(chosen):
            return self._decode(latents, [self._slots[slot] for slot in chosen], ready)

    def _decode(self, latents: Tensor, states: list[Slot], ready: torch.cuda.Event | None) -> Tensor:
        with self._decode_stream.after({ready} if ready is not None else {state.ready for state in states}):
            joined = {name: torch.cat([state.codec[name] for state in states]) for name in states[0].codec}
            frames, after = self.model.decode(latents, joined)
        self._decode_stream.hand_over([frames, *after.values()])
        for row, state in enumerate(states):
            state.codec = {name: value[row : row + 1] for name, value in after.items()}
        return frames

    def ready(self, slot: int) -> torch.cuda.Event | None:
        """Return the event after which the slot's newest chunk is computed; None on a CPU."""
        return self._started(slot).ready

    def step(self, actions: Actions, slots: Sequence[int] | None = None) -> Tensor:
        """Generate and decode each slot's next chunk: uint8 `b f h w 3`."""
        slots = self._resolve(slots)
        with self.threads.step(len(slots)):
            return self.decode(self.step_latents(actions, slots), slots)

    def snapshot(self, slot: int, *, exact: bool = True, frame: int | None = None) -> RolloutState:
        """Return the session as data, as it is or as it was at `frame` (see `rewind`): with a copy of its K/V (`exact`:
        bit-equal on restore), or only with what is needed to replay them."""
        return run_to_end(self.snapshotting(slot, exact=exact, frame=frame))

    @in_parts
    def snapshotting(
        self, slot: int, *, exact: bool = True, frame: int | None = None
    ) -> Generator[None, None, RolloutState]:
        """Take a `snapshot` in parts of one forward pass each. The slot must not be used before the generator ends; it
        is put back as it was even if the generator is closed early."""
        state = self._started(slot)
        if frame is not None and frame != self.frame_index(slot):
            present, kv = state.copy(), self.arena.copy_out(slot)
            try:
                yield from self.rewinding(slot, frame)
                return self._as_data(slot, exact)
            finally:
                self._put(slot, present, kv, keep_kv_checkpoint=False)
        return self._as_data(slot, exact)

    def rewind(self, slot: int, frame: int) -> None:
        """Go back to where `frame_index` was `frame`. Raises ShapeError if `frame` is not the start of a chunk, or not
        between `oldest_frame` and the present."""
        run_to_end(self.rewinding(slot, frame))

    @in_parts
    def rewinding(self, slot: int, frame: int) -> Generator[None, None, None]:
        """Rewind in parts of one forward pass each. The slot must not be used before the generator has ended."""
        state, chunk = self._started(slot), self.config.chunk_frames
        first, last = self.oldest_frame(slot), self.frame_index(slot)
        if frame % chunk or not first <= frame <= last:
            steps = f", in steps of {chunk}" if chunk > 1 else ""
            reach = f"can go back to frames {first} to {last}{steps}" if first < last else f"is at {last}, its oldest"
            remedy = (
                "" if self.timeline_chunks else "; a rollout that goes back needs timeline_chunks=N, see World.start"
            )
            raise ShapeError(f"frame {frame}: slot {slot} {reach}{remedy}")
        if frame == last:
            return
        kv_checkpoint, since = state.back_to(state.start_chunk + frame // chunk, chunk)
        self._put(slot, state, kv_checkpoint.kv, keep_kv_checkpoint=False)
        for start in range(0, len(since), chunk):
            latents, vectors = (part[None] for part in stacked(since[start : start + chunk]))
            self._pass(0, self._noise([state], 0), vectors, [slot], [state])
            self._advance([slot], [state], latents, vectors)
            yield
        state.codec = codec_state_after(self.model, state.recent)

    def _noise(self, states: list[Slot], stage: int) -> Tensor:
        sessions = [(state.seed, state.next_chunk) for state in states]
        return chunk_noise(self.config, sessions, stage).to(self.model.device)

    def _advance(self, slots: list[int], states: list[Slot], latents: Tensor, vectors: Tensor) -> None:
        for row, (slot, state) in enumerate(zip(slots, states, strict=True)):
            first = state.next_chunk * self.config.chunk_frames
            for i in range(self.config.chunk_frames):
                state.recent.append((first + i, latents[row, i], vectors[row, i]))
            state.next_chunk += 1
            if state.next_chunk % KV_CHECKPOINT_CHUNKS == 0:
                self._keep_kv_checkpoint(slot)
            state.forget(history_frames(self.config), self.config.chunk_frames)
