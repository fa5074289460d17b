"""Many sessions generated together, chunk by chunk. Owns slots, noise, the two-pass step and snapshots of state.

A step of the slots asked for is one batched forward per denoising stage. The commit of the chunk before rides in the
first of them: the sequence [clean chunk i−1; noisy chunk i], where per layer the clean chunk writes its K/V and attends
before the noisy one does. Noise is a function of (seed, chunk, stage) alone. Knows no sockets, files or clocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from world.actions import Actions
from world.cache import Arena, ArenaContext
from world.context import Banded
from world.errors import ShapeError
from world.inputs import action_vectors, check_context, chunk_vectors, fit_context, noise_seed
from world.model import Model
from world.passes import PassInput, StaticPasses
from world.schedule import add_noise, euler_step, x0_from_velocity
from world.timeline import MOMENT_CHUNKS, Entry, Moment, RolloutState, Slot, finish
from world.transformer import Conditioning

Frames = Tensor | NDArray[np.uint8]


class Rollout:
    """`num_slots` sessions of one world. Not thread-safe: one thread owns it.

    timeline_chunks: how far `rewind` can go back at least; costs a K/V copy per slot every `MOMENT_CHUNKS` chunks.
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
        self._static = StaticPasses(model.transformer, self.arena) if static else None
        self._slots: dict[int, Slot] = {}
        self._levels = [float(level) for level in model.sigmas]

    @property
    def num_slots(self) -> int:
        return self.arena.num_slots

    @torch.inference_mode()
    def start(self, slots: Sequence[int], frames: Frames, actions: Actions, seeds: Sequence[int]) -> None:
        """Fill slots from real context: frames uint8 `b t h w 3`, actions `b t`.

        If t is less than the world's context, the first frame is repeated before it with no action; if more, the last
        ones count. Raises ShapeError where the shapes do not fit the world.
        """
        pictures = frames if isinstance(frames, Tensor) else torch.tensor(frames)  # a copy: the array may be read-only
        self._check_slots(slots)
        check_context(self.model, slots, pictures, actions, seeds)
        pictures, actions = fit_context(pictures, actions, self.model.context_pixel_frames)
        latents, codec_state = self.model.encode(pictures)
        vectors = action_vectors(actions, self.model.codec.config.temporal_patch).to(self.model.device)
        chunk = self.config.chunk_frames
        index = tuple(range(latents.shape[1]))
        for row, slot in enumerate(slots):
            first = len(index) // chunk
            record = [(i, latents[row, i], vectors[row, i]) for i in index]
            codec = {name: value[row : row + 1].clone() for name, value in codec_state.items()}
            self._slots[slot] = Slot(int(seeds[row]), first, first, *self._split(record), codec)
            self._replay(slot)
            self._keep_moment(slot)

    @torch.inference_mode()
    def step_latents(self, actions: Actions, slots: Sequence[int] | None = None) -> Tensor:
        """Generate the next chunk of each slot: actions `b f` (f = the chunk's pixel frames, or 1 to hold one action)
        → latents `b chunk c h w`, float32."""
        slots = self._resolve(slots)
        states = [self._slots[slot] for slot in slots]
        vectors = chunk_vectors(self.model, actions, len(slots))
        x = self._noise(states, 0)
        for stage in range(len(self._levels) - 1):
            velocity = self._pass(stage, x, vectors, slots, states)
            x = self._next_input(x, velocity, stage, states)
        x = self.model.codec.carried_on(torch.stack([state.recent[-1][1] for state in states]), x)
        self._advance(slots, states, x, vectors)
        return x

    def _pass(self, stage: int, x: Tensor, vectors: Tensor, slots: list[int], states: list[Slot]) -> Tensor:
        """Velocity of the noisy chunks x; in the first stage's pass the chunks before are committed."""
        chunk, device = self.config.chunk_frames, self.model.device
        first_chunk = torch.tensor([state.next_chunk for state in states], device=device)
        levels, num_chunks = [self._levels[stage]] * chunk, 1
        if stage == 0:
            pending = [list(state.recent)[-chunk:] for state in states]
            clean = torch.stack([torch.stack([latent for _, latent, _ in rows]) for rows in pending])
            clean_actions = torch.stack([torch.stack([vector for _, _, vector in rows]) for rows in pending])
            x, vectors = torch.cat([clean, x], 1), torch.cat([clean_actions, vectors], 1)
            levels, num_chunks, first_chunk = [self.model.context_sigma] * chunk + levels, 2, first_chunk - 1
        sigma = torch.tensor(levels, device=device).repeat(len(slots), 1)
        if self._static is not None:
            where = torch.tensor(slots, device=device)
            given = PassInput(x=x, sigma=sigma, actions=vectors, slots=where, first_chunk=first_chunk)
            return self._static(given, num_chunks)[:, -chunk:]
        context = ArenaContext.of(self.arena, slots, first_chunk, num_chunks)
        output = self.model.network(len(slots), num_chunks)(x, sigma, Conditioning(actions=vectors), context=context)
        velocity: Tensor = output.prediction[:, -chunk:].float()
        return velocity

    def _next_input(self, x: Tensor, velocity: Tensor, stage: int, states: list[Slot]) -> Tensor:
        """From a stage's input and velocity: the next stage's input, or x0 after the last."""
        sigma, sigma_next = (torch.tensor(level) for level in self._levels[stage : stage + 2])
        if not self.model.sampler.renoise:
            return euler_step(x, velocity, sigma, sigma_next)
        x0 = x0_from_velocity(x, velocity, sigma)
        return add_noise(x0, self._noise(states, stage + 1), sigma_next) if sigma_next > 0 else x0

    @torch.inference_mode()
    def decode(self, latents: Tensor, slots: Sequence[int] | None = None) -> Tensor:
        """Latents of the slots' newest chunk `b chunk c h w` → uint8 `b f h w 3`; moves the codec's state on."""
        states = [self._slots[slot] for slot in self._resolve(slots)]
        joined = {name: torch.cat([state.codec[name] for state in states]) for name in states[0].codec}
        frames, after = self.model.decode(latents, joined)
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
        return finish(self.snapshotting(slot, exact=exact, frame=frame))

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
                self._slots[slot] = kept
                self.arena.copy_in(slot, kv)
        return self._as_data(slot, exact)

    def _as_data(self, slot: int, exact: bool) -> RolloutState:
        return self._slots[slot].as_data(self._history_frames(), self.arena.copy_out(slot) if exact else None)

    @torch.inference_mode()
    def restore(self, slot: int, state: RolloutState) -> None:
        """Put a snapshot into any slot; the session goes on as if nothing had happened."""
        self._check_slots([slot])
        device = self.model.device
        history, actions = state.history.to(device), state.history_actions.to(device)
        record = list(zip(state.history_index, history, actions, strict=True))
        codec = {name: value.to(device, copy=True) for name, value in state.codec.items()}
        self._slots[slot] = Slot(state.seed, state.next_chunk, state.start_chunk, *self._split(record), codec)
        if state.kv is not None:
            self.arena.copy_in(slot, state.kv)
        else:
            self._replay(slot)
        self._keep_moment(slot)

    def rewind(self, slot: int, frame: int) -> None:
        """Go back to where `frame_index` was `frame`. Raises ShapeError for another frame than `oldest_frame` and
        those after it up to now, or within a chunk."""
        finish(self.rewinding(slot, frame))

    @torch.inference_mode()
    def rewinding(self, slot: int, frame: int) -> Generator[None, None, None]:
        """`rewind` in parts of one forward pass each; the slot is of no use before the last."""
        state, chunk = self._started(slot), self.config.chunk_frames
        first, last = self.oldest_frame(slot), self.frame_index(slot)
        if frame % chunk or not first <= frame <= last:
            raise ShapeError(f"frame {frame}: slot {slot} can go back to multiples of {chunk} from {first} to {last}")
        if frame == last:
            return
        moment, since = state.back_to(state.start_chunk + frame // chunk, chunk)
        self.arena.copy_in(slot, moment.kv)
        for place in range(0, len(since), chunk):
            part = since[place : place + chunk]
            latents = torch.stack([latent for _, latent, _ in part])[None]
            vectors = torch.stack([vector for _, _, vector in part])[None]
            self._pass(0, self._noise([state], 0), vectors, [slot], [state])
            self._advance([slot], [state], latents, vectors)
            yield
        last_latents = torch.stack([latent for _, latent, _ in list(state.recent)[-chunk:]])[None]
        state.codec = self.model.codec.state_after(last_latents.to(self.model.dtype))

    def release(self, slot: int) -> None:
        """Let go of what is kept for this slot, if anything; it can be started again."""
        self._slots.pop(slot, None)

    def oldest_frame(self, slot: int) -> int:
        """The earliest frame of this slot's run that `rewind` can go back to."""
        state = self._started(slot)
        oldest = state.moments[0].next_chunk if state.moments else state.next_chunk
        return (oldest - state.start_chunk) * self.config.chunk_frames

    @torch.inference_mode()
    def last_picture(self, slot: int) -> Tensor:
        """The last pixel frame so far, uint8 `h w 3`, decoded anew; changes nothing."""
        state, chunk = self._started(slot), self.config.chunk_frames
        latents = torch.stack([latent for _, latent, _ in list(state.recent)[-2 * chunk :]])[None]
        before = self.model.codec.state_after(latents[:, :-chunk].to(self.model.dtype))
        return self.model.decode(latents[:, -chunk:], before)[0][0, -1]

    def _split(self, record: Sequence[Entry]) -> tuple[list[Entry], deque[Entry]]:
        """(sink, the rest with room to grow) of a session's record."""
        num_sink = self.config.sink_frames
        room = (self.timeline_chunks + MOMENT_CHUNKS) * self.config.chunk_frames if self.timeline_chunks else 0
        return list(record[:num_sink]), deque(record[num_sink:], maxlen=self._history_frames() + room)

    def _keep_moment(self, slot: int) -> None:
        if self.timeline_chunks:
            state = self._slots[slot]
            state.moments.append(Moment(state.next_chunk, self.arena.copy_out(slot)))

    def _replay(self, slot: int) -> None:
        """Recompute the slot's K/V of every committed frame it may still see, from its history."""
        state, chunk = self._slots[slot], self.config.chunk_frames
        record = [*state.sink, *list(state.recent)[-self._history_frames() :]][:-chunk]
        index = tuple(i for i, _, _ in record)
        x = torch.stack([latent for _, latent, _ in record])[None]
        actions = torch.stack([vector for _, _, vector in record])[None]
        level = torch.full(x.shape[:2], self.model.context_sigma, device=x.device)
        context = Banded(self.config, index)
        kv = self.model.transformer(x, level, Conditioning(actions=actions), context=context).kv
        sink_tokens = self.config.sink_frames * self.config.tokens_per_frame
        window_tokens = self.config.window_frames * self.config.tokens_per_frame
        if sink_tokens:
            self.arena.load(slot, 0, [(k[:, :sink_tokens], v[:, :sink_tokens]) for k, v in kv])
        first = (index[-1] + 1 - self.config.window_frames) // chunk
        self.arena.load(slot, first, [(k[:, -window_tokens:], v[:, -window_tokens:]) for k, v in kv])

    def _history_frames(self) -> int:
        """Frames whose replay gives exact K/V of the window in every layer, and the pending chunk."""
        return self.config.num_layers * self.config.window_frames + self.config.chunk_frames

    def _noise(self, states: list[Slot], stage: int) -> Tensor:
        shape = (self.config.chunk_frames, self.config.channels, self.config.height, self.config.width)
        rows = [
            torch.randn(shape, generator=torch.Generator().manual_seed(noise_seed(s.seed, s.next_chunk, stage)))
            for s in states
        ]
        return torch.stack(rows).to(self.model.device)

    def _advance(self, slots: list[int], states: list[Slot], latents: Tensor, vectors: Tensor) -> None:
        for row, (slot, state) in enumerate(zip(slots, states, strict=True)):
            first = state.next_chunk * self.config.chunk_frames
            for place in range(self.config.chunk_frames):
                state.recent.append((first + place, latents[row, place], vectors[row, place]))
            state.next_chunk += 1
            if state.next_chunk % MOMENT_CHUNKS == 0:
                self._keep_moment(slot)
            state.forget(self._history_frames(), self.config.chunk_frames)

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
