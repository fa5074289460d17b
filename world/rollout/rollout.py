"""Many sessions generated together, chunk by chunk. Owns slots, noise, the two-pass step and snapshots of state.

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
from world.rollout.cache import Arena, ArenaPattern
from world.rollout.decode_stream import DecodeStream
from world.rollout.inputs import action_vectors, check_context, chunk_noise, chunk_vectors, fit_context
from world.rollout.networks import Model
from world.rollout.passes import StaticPasses, pass_input
from world.rollout.prompts import Prompts
from world.rollout.replay import codec_state_after, history_frames, replay, split_record
from world.rollout.step_threads import StepThreads
from world.rollout.timeline import KV_CHECKPOINT_CHUNKS, KVCheckpoint, RolloutState, Slot, run_to_end, stacked

Frames = Tensor | NDArray[np.uint8]


class Rollout:
    """`num_slots` sessions of one world. Not thread-safe: one thread owns it.

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
        self.model = model
        self.config = model.transformer.config
        self.arena = Arena(
            self.config,
            num_slots,
            dtype=model.dtype,
            device=model.device,
            int8=int8_cache,
            kernel_choice=model.kernel_choice,
        )
        self.timeline_chunks = timeline_chunks
        static = model.device.type == "cuda" if static is None else static
        self._prompts = Prompts(model, num_slots)
        self._decode_stream = DecodeStream(model.device)
        self._static = StaticPasses(model.transformer, self.arena, self._prompts) if static else None
        self.threads = StepThreads(model.threads, model.device)
        self._slots: dict[int, Slot] = {}

    @property
    def num_slots(self) -> int:
        return self.arena.num_slots

    @torch.inference_mode()
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
        texts = texts or [None] * len(slots)
        pixels = frames if isinstance(frames, Tensor) else torch.tensor(frames)  # a copy: the array may be read-only
        self._check_slots(slots)
        check_context(self.model, slots, pixels, actions, seeds)
        if len(texts) != len(slots):
            raise ShapeError(f"{len(texts)} texts do not fit slots {list(slots)}: give one, or None, for each")
        for text in texts:
            self._prompts.check(text)
        pixels, actions = fit_context(pixels, actions, self.model.context_pixel_frames)
        latents, codec_state = self.model.encode(pixels)
        codec = self.model.codec
        vectors = action_vectors(actions, codec.temporal_patch, codec.first_frames).to(self.model.device)
        num_frames = latents.shape[1]
        first = num_frames // self.config.chunk_frames
        for row, slot in enumerate(slots):
            record = [(i, latents[row, i], vectors[row, i]) for i in range(num_frames)]
            sink, recent = split_record(self.config, record, self.timeline_chunks)
            codec_row = {name: value[row : row + 1].clone() for name, value in codec_state.items()}
            self._put(slot, Slot(int(seeds[row]), first, first, sink, recent, codec_row, texts[row]))

    @torch.inference_mode()
    def set_text(self, slot: int, text: Tensor | None) -> None:
        """Use this text (token embeddings `l text_dim`), or none, from the next chunk on. Recomputes the slot's cache
        under the new text; otherwise the old one would still act for a window (LongLive's KV re-cache,
        arXiv:2509.22622). Raises ShapeError if the text does not fit the world."""
        state = self._started(slot)
        self._prompts.check(text)
        state.text = text
        self._put(slot, state)

    @torch.inference_mode()
    def step_latents(self, actions: Actions, slots: Sequence[int] | None = None) -> Tensor:
        """Generate each slot's next chunk: actions `b f` (f = the chunk's pixel frames, or 1 to hold one action) →
        latents `b chunk c h w`, float32."""
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
        pattern = ArenaPattern.of(self.arena, slots, inputs.first_chunk, num_chunks)
        text = self._prompts.of(slots)
        network = self.model.network(len(slots), num_chunks) if text is None else self.model.transformer
        output = network(inputs.x, inputs.sigma, Conditioning(actions=inputs.actions, text=text), pattern=pattern)
        velocity: Tensor = output.prediction[:, -self.config.chunk_frames :].float()
        return velocity

    @torch.inference_mode()
    def decode(self, latents: Tensor, slots: Sequence[int] | None = None) -> Tensor:
        """Decode the slots' newest chunk, latents `b chunk c h w` → uint8 `b f h w 3`, and advance the codec's state.
        Another thread may call this while the next chunks are generated."""
        states = [self._slots[slot] for slot in self._resolve(slots)]
        with self._decode_stream.after({state.ready for state in states}):
            joined = {name: torch.cat([state.codec[name] for state in states]) for name in states[0].codec}
            frames, after = self.model.decode(latents, joined)
        self._decode_stream.hand_over([frames, *after.values()])
        for row, state in enumerate(states):
            state.codec = {name: value[row : row + 1] for name, value in after.items()}
        return frames

    def step(self, actions: Actions, slots: Sequence[int] | None = None) -> Tensor:
        """Generate and decode each slot's next chunk: uint8 `b f h w 3`."""
        slots = self._resolve(slots)
        with self.threads.step(len(slots)):
            return self.decode(self.step_latents(actions, slots), slots)

    def frame_index(self, slot: int) -> int:
        """Return the number of latent frames generated in this slot since its start."""
        state = self._started(slot)
        return (state.next_chunk - state.start_chunk) * self.config.chunk_frames

    def snapshot(self, slot: int, *, exact: bool = True, frame: int | None = None) -> RolloutState:
        """Return the session as data, as it is or as it was at `frame` (see `rewind`): with a copy of its K/V (`exact`:
        bit-equal on restore), or only with what is needed to replay them."""
        return run_to_end(self.snapshotting(slot, exact=exact, frame=frame))

    @torch.inference_mode()
    def snapshotting(
        self, slot: int, *, exact: bool = True, frame: int | None = None
    ) -> Generator[None, None, RolloutState]:
        """Take a `snapshot` in steps of one forward pass each. The slot must not be used before the generator ends; it
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

    def _as_data(self, slot: int, exact: bool) -> RolloutState:
        return self._slots[slot].as_data(history_frames(self.config), self.arena.copy_out(slot) if exact else None)

    @torch.inference_mode()
    def restore(self, slot: int, state: RolloutState) -> None:
        """Load a snapshot into any slot; the session continues where it was taken. Check snapshots from untrusted
        sources with `world.rollout.snapshots.check_state` first."""
        self._check_slots([slot])
        device = self.model.device
        history, actions = state.history.to(device), state.history_actions.to(device)
        record = list(zip(state.history_index, history, actions, strict=True))
        codec = {name: value.to(device, copy=True) for name, value in state.codec.items()}
        self._prompts.check(state.text)
        sink, recent = split_record(self.config, record, self.timeline_chunks)
        if state.kv is None:  # then the codec's state may be missing or of another frame, too
            codec = codec_state_after(self.model, recent)
        restored = Slot(state.seed, state.next_chunk, state.start_chunk, sink, recent, codec, state.text)
        self._put(slot, restored, state.kv)

    def rewind(self, slot: int, frame: int) -> None:
        """Go back to where `frame_index` was `frame`. Raises ShapeError if `frame` is not the start of a chunk, or not
        between `oldest_frame` and the present."""
        run_to_end(self.rewinding(slot, frame))

    @torch.inference_mode()
    def rewinding(self, slot: int, frame: int) -> Generator[None, None, None]:
        """Rewind in steps of one forward pass each. The slot must not be used before the generator has ended."""
        state, chunk = self._started(slot), self.config.chunk_frames
        first, last = self.oldest_frame(slot), self.frame_index(slot)
        if frame % chunk or not first <= frame <= last:
            raise ShapeError(f"frame {frame}: slot {slot} can go back to multiples of {chunk} from {first} to {last}")
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

    def release(self, slot: int) -> None:
        """Forget this slot's session, if it has one; the slot can be started again."""
        self._slots.pop(slot, None)

    def oldest_frame(self, slot: int) -> int:
        """Return the earliest frame that `rewind` can go back to in this slot."""
        state = self._started(slot)
        oldest = state.kv_checkpoints[0].next_chunk if state.kv_checkpoints else state.next_chunk
        return (oldest - state.start_chunk) * self.config.chunk_frames

    @torch.inference_mode()
    def last_picture(self, slot: int) -> Tensor:
        """Decode the last pixel frame so far again: uint8 `h w 3`. Changes nothing."""
        state, chunk = self._started(slot), self.config.chunk_frames
        latents, _ = stacked(list(state.recent)[-chunk:])
        before = codec_state_after(self.model, list(state.recent)[:-chunk])
        return self.model.decode(latents[None], before)[0][0, -1]

    def _keep_kv_checkpoint(self, slot: int) -> None:
        if self.timeline_chunks:
            state = self._slots[slot]
            state.kv_checkpoints.append(KVCheckpoint(state.next_chunk, self.arena.copy_out(slot), state.text))

    def _put(
        self, slot: int, state: Slot, kv: tuple[Tensor, ...] | None = None, *, keep_kv_checkpoint: bool = True
    ) -> None:
        """Put a session into a slot, with this K/V, or with K/V replayed from its record."""
        self._slots[slot] = state
        self._prompts.put(slot, state.text)
        if kv is not None:
            self.arena.copy_in(slot, kv)
        else:
            committed = [*state.sink, *list(state.recent)[-history_frames(self.config) :]][: -self.config.chunk_frames]
            replay(self.model, self.arena, slot, committed, self._prompts.of([slot]))
        if keep_kv_checkpoint:
            self._keep_kv_checkpoint(slot)

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

    def _resolve(self, slots: Sequence[int] | None) -> list[int]:
        chosen = sorted(self._slots) if slots is None else list(slots)
        self._check_slots(chosen)
        missing = [slot for slot in chosen if slot not in self._slots]
        if missing or not chosen:
            raise ShapeError(f"slots {missing or chosen} have not been started: call `start` first")
        return chosen

    def _started(self, slot: int) -> Slot:
        return self._slots[self._resolve([slot])[0]]

    def _check_slots(self, slots: Sequence[int]) -> None:
        if len(set(slots)) < len(slots) or not all(0 <= slot < self.num_slots for slot in slots):
            raise ShapeError(f"slots {list(slots)}: each must be listed once and be in 0 … {self.num_slots - 1}")
