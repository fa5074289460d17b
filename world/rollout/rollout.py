"""Many sessions generated together, chunk by chunk. Owns slots, noise, the two-pass step and snapshots of state.

A step of the slots asked for is one batched forward per denoising stage. The commit of the chunk before rides in the
first of them: the sequence [clean chunk i−1; noisy chunk i], where per layer the clean chunk writes its K/V and attends
before the noisy one does. Noise is a function of (seed, chunk, stage) alone. Knows no sockets, files or clocks.
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
from world.rollout.replay import history_frames, replay, split
from world.rollout.timeline import KV_CHECKPOINT_CHUNKS, KVCheckpoint, RolloutState, Slot, run_to_end, stacked

Frames = Tensor | NDArray[np.uint8]


class Rollout:
    """`num_slots` sessions of one world. Not thread-safe: one thread owns it.

    timeline_chunks: how far `rewind` can go back at least; costs a K/V copy per slot every `KV_CHECKPOINT_CHUNKS` chunks.
    static: whether passes run in buffers that do not move, on a GPU as captured graphs (default: on a GPU).
    int8_cache: keeps K/V in 8 bit, for more sessions in the same memory (see docs/kernels.md for its price).
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
        self.arena = Arena(self.config, num_slots, dtype=model.dtype, device=model.device, int8=int8_cache)
        self.timeline_chunks = timeline_chunks
        static = model.device.type == "cuda" if static is None else static
        self._prompts = Prompts(model, num_slots)
        self._decode_stream = DecodeStream(model.device)
        self._static = StaticPasses(model.transformer, self.arena, self._prompts) if static else None
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
        """Fill slots from real context: frames uint8 `b t h w 3`, actions `b t`; texts: for worlds that take them, each
        slot's token embeddings `l text_dim`, or None.

        If t is less than the world's context, the first frame is repeated before it with no action; if more, the last
        ones count. Raises ShapeError where the shapes do not fit the world.
        """
        texts = texts or [None] * len(slots)
        pictures = frames if isinstance(frames, Tensor) else torch.tensor(frames)  # a copy: the array may be read-only
        self._check_slots(slots)
        check_context(self.model, slots, pictures, actions, seeds)
        if len(texts) != len(slots):
            raise ShapeError(f"{len(texts)} texts do not fit slots {list(slots)}: give one, or None, for each")
        for text in texts:
            self._prompts.check(text)
        pictures, actions = fit_context(pictures, actions, self.model.context_pixel_frames)
        latents, codec_state = self.model.encode(pictures)
        vectors = action_vectors(actions, self.model.codec.config.temporal_patch).to(self.model.device)
        chunk = self.config.chunk_frames
        index = tuple(range(latents.shape[1]))
        for row, slot in enumerate(slots):
            first = len(index) // chunk
            record = [(i, latents[row, i], vectors[row, i]) for i in index]
            codec = {name: value[row : row + 1].clone() for name, value in codec_state.items()}
            self._put(
                slot,
                Slot(
                    int(seeds[row]), first, first, *split(self.config, record, self.timeline_chunks), codec, texts[row]
                ),
            )

    @torch.inference_mode()
    def set_text(self, slot: int, text: Tensor | None) -> None:
        """From the next chunk on, this text (token embeddings `l text_dim`) or none. What the slot remembers is made
        anew under it, or it would go on as before for a window (LongLive's KV re-cache, arXiv:2509.22622). Raises
        ShapeError where the world does not take it."""
        state = self._started(slot)
        self._prompts.check(text)
        state.text = text
        self._put(slot, state)

    @torch.inference_mode()
    def step_latents(self, actions: Actions, slots: Sequence[int] | None = None) -> Tensor:
        """Generate the next chunk of each slot: actions `b f` (f = the chunk's pixel frames, or 1 to hold one action)
        → latents `b chunk c h w`, float32."""
        slots = self._resolve(slots)
        states = [self._slots[slot] for slot in slots]
        vectors = chunk_vectors(self.model, actions, len(slots))
        x = self._noise(states, 0)
        for stage in range(self.model.sampler.num_steps):
            velocity = self._pass(stage, x, vectors, slots, states)
            x = self.model.denoised(x, velocity, stage, lambda following: self._noise(states, following))
        x = self.model.codec.advance_state_channels(torch.stack([state.recent[-1][1] for state in states]), x)
        self._advance(slots, states, x, vectors)
        made = self._decode_stream.mark()
        for state in states:
            state.made = made
        return x

    def _pass(self, stage: int, x: Tensor, vectors: Tensor, slots: list[int], states: list[Slot]) -> Tensor:
        """Velocity of the noisy chunks x; in the first stage's pass the chunks before are committed."""
        given, num_chunks = pass_input(self.model, stage, x, vectors, slots, states)
        if self._static is not None:
            return self._static(given, num_chunks)[:, -self.config.chunk_frames :]
        pattern = ArenaPattern.of(self.arena, slots, given.first_chunk, num_chunks)
        text = self._prompts.of(slots)
        network = self.model.network(len(slots), num_chunks) if text is None else self.model.transformer
        output = network(given.x, given.sigma, Conditioning(actions=given.actions, text=text), pattern=pattern)
        velocity: Tensor = output.prediction[:, -self.config.chunk_frames :].float()
        return velocity

    @torch.inference_mode()
    def decode(self, latents: Tensor, slots: Sequence[int] | None = None) -> Tensor:
        """Latents of the slots' newest chunk `b chunk c h w` → uint8 `b f h w 3`; moves the codec's state on. Another
        thread may do this while the next chunks are made."""
        states = [self._slots[slot] for slot in self._resolve(slots)]
        with self._decode_stream.after({state.made for state in states}):
            joined = {name: torch.cat([state.codec[name] for state in states]) for name in states[0].codec}
            frames, after = self.model.decode(latents, joined)
        self._decode_stream.hand_over([frames, *after.values()])
        for row, state in enumerate(states):
            state.codec = {name: value[row : row + 1] for name, value in after.items()}
        return frames

    def step(self, actions: Actions, slots: Sequence[int] | None = None) -> Tensor:
        """Generate and decode the next chunk: uint8 `b f h w 3`."""
        return self.decode(self.step_latents(actions, slots), slots)

    def frame_index(self, slot: int) -> int:
        """Latent frames generated in this slot since its start."""
        state = self._started(slot)
        return (state.next_chunk - state.start_chunk) * self.config.chunk_frames

    def snapshot(self, slot: int, *, exact: bool = True, frame: int | None = None) -> RolloutState:
        """The session as data: with a copy of its K/V (`exact`, bit-equal on restore), or only what replays it. As it
        is, or as it was at `frame` (see `rewind`)."""
        return run_to_end(self.snapshotting(slot, exact=exact, frame=frame))

    @torch.inference_mode()
    def snapshotting(
        self, slot: int, *, exact: bool = True, frame: int | None = None
    ) -> Generator[None, None, RolloutState]:
        """`snapshot` in parts of one forward pass each; meanwhile the slot is not itself, but it will be, even where
        the generator is closed early."""
        state = self._started(slot)
        if frame is not None and frame != self.frame_index(slot):
            kept, kv = state.copy(), self.arena.copy_out(slot)
            try:
                yield from self.rewinding(slot, frame)
                return self._as_data(slot, exact)
            finally:
                self._put(slot, kept, kv, keep_kv_checkpoint=False)
        return self._as_data(slot, exact)

    def _as_data(self, slot: int, exact: bool) -> RolloutState:
        return self._slots[slot].as_data(history_frames(self.config), self.arena.copy_out(slot) if exact else None)

    @torch.inference_mode()
    def restore(self, slot: int, state: RolloutState) -> None:
        """Put a snapshot into any slot; the session goes on as if nothing had happened. Where it comes from others, let
        `world.rollout.snapshots.check_state` look at it first."""
        self._check_slots([slot])
        device = self.model.device
        history, actions = state.history.to(device), state.history_actions.to(device)
        record = list(zip(state.history_index, history, actions, strict=True))
        codec = {name: value.to(device, copy=True) for name, value in state.codec.items()}
        if state.kv is None:  # then its codec's state may be of any moment, too
            codec = self.model.codec.state_after(history[None, -self.config.chunk_frames :].to(self.model.dtype))
        self._prompts.check(state.text)
        kept = split(self.config, record, self.timeline_chunks)
        self._put(slot, Slot(state.seed, state.next_chunk, state.start_chunk, *kept, codec, state.text), state.kv)

    def rewind(self, slot: int, frame: int) -> None:
        """Go back to where `frame_index` was `frame`. Raises ShapeError for another frame than `oldest_frame` and
        those after it up to now, or within a chunk."""
        run_to_end(self.rewinding(slot, frame))

    @torch.inference_mode()
    def rewinding(self, slot: int, frame: int) -> Generator[None, None, None]:
        """`rewind` in parts of one forward pass each; the slot is of no use before the last."""
        state, chunk = self._started(slot), self.config.chunk_frames
        first, last = self.oldest_frame(slot), self.frame_index(slot)
        if frame % chunk or not first <= frame <= last:
            raise ShapeError(f"frame {frame}: slot {slot} can go back to multiples of {chunk} from {first} to {last}")
        if frame == last:
            return
        kv_checkpoint, since = state.back_to(state.start_chunk + frame // chunk, chunk)
        self._put(slot, state, kv_checkpoint.kv, keep_kv_checkpoint=False)
        for place in range(0, len(since), chunk):
            latents, vectors = (part[None] for part in stacked(since[place : place + chunk]))
            self._pass(0, self._noise([state], 0), vectors, [slot], [state])
            self._advance([slot], [state], latents, vectors)
            yield
        pending, _ = stacked(list(state.recent)[-chunk:])
        state.codec = self.model.codec.state_after(pending[None].to(self.model.dtype))

    def release(self, slot: int) -> None:
        """Let go of what is kept for this slot, if anything; it can be started again."""
        self._slots.pop(slot, None)

    def oldest_frame(self, slot: int) -> int:
        """The earliest frame of this slot's run that `rewind` can go back to."""
        state = self._started(slot)
        oldest = state.kv_checkpoints[0].next_chunk if state.kv_checkpoints else state.next_chunk
        return (oldest - state.start_chunk) * self.config.chunk_frames

    @torch.inference_mode()
    def last_picture(self, slot: int) -> Tensor:
        """The last pixel frame so far, uint8 `h w 3`, decoded anew; changes nothing."""
        state, chunk = self._started(slot), self.config.chunk_frames
        latents = stacked(list(state.recent)[-2 * chunk :])[0][None]
        before = self.model.codec.state_after(latents[:, :-chunk].to(self.model.dtype))
        return self.model.decode(latents[:, -chunk:], before)[0][0, -1]

    def _keep_kv_checkpoint(self, slot: int) -> None:
        if self.timeline_chunks:
            state = self._slots[slot]
            state.kv_checkpoints.append(KVCheckpoint(state.next_chunk, self.arena.copy_out(slot), state.text))

    def _put(
        self, slot: int, state: Slot, kv: tuple[Tensor, ...] | None = None, *, keep_kv_checkpoint: bool = True
    ) -> None:
        """Make a slot this session, with this K/V or what its record gives."""
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
            for place in range(self.config.chunk_frames):
                state.recent.append((first + place, latents[row, place], vectors[row, place]))
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
            raise ShapeError(f"slots {list(slots)}: each must be given once and lie in 0 … {self.num_slots - 1}")
