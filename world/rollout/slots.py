"""The contents of a rollout's slots: each session's record, K/V and text. Owns putting a session into a slot and
taking it out as data; generates nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence

from torch import Tensor

from world.errors import ShapeError
from world.rollout.cache import Arena
from world.rollout.networks import Model
from world.rollout.ownership import Ownership
from world.rollout.parts import in_parts, run_to_end
from world.rollout.prompts import Prompts
from world.rollout.replay import codec_state_after, history_frames, part_frames, replaying, split_record
from world.rollout.step_threads import StepThreads, inference_like_step
from world.rollout.timeline import FrameRecord, KVCheckpoint, RolloutState, Slot, stacked


class Slots:
    """`num_slots` slots of one world; the same arguments as `Rollout`."""

    def __init__(self, model: Model, num_slots: int, *, timeline_chunks: int, int8_cache: bool) -> None:
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
        self.ownership = Ownership()
        self.threads = StepThreads(model.threads, model.device)
        self._prompts = Prompts(model, num_slots)
        self._slots: dict[int, Slot] = {}

    def __repr__(self) -> str:
        started = f"{self.num_slots} slots, {len(self._slots)} started"
        return f"{type(self).__name__}({self.model.card.name!r}, {started}, timeline_chunks={self.timeline_chunks})"

    @property
    def num_slots(self) -> int:
        return self.arena.num_slots

    @inference_like_step
    def set_text(self, slot: int, text: Tensor | None) -> None:
        """Use this text (token embeddings `l text_dim`), or none, from the next chunk on. Recomputes the slot's cache
        under the new text; otherwise the old one would still act for a window (LongLive's KV re-cache,
        arXiv:2509.22622). Raises ShapeError if the text does not fit the world."""
        state = self._started(slot)
        self._prompts.check(text)
        state.text = text
        self._put(slot, state)

    def restore(self, slot: int, state: RolloutState) -> None:
        """Load a snapshot into any slot; the session continues where it was taken. Check snapshots from untrusted
        sources with `world.rollout.snapshots.check_state` first."""
        run_to_end(self.restoring(slot, state, num_frames=len(state.history)))

    @in_parts
    def restoring(
        self, slot: int, state: RolloutState, *, num_frames: int | None = None
    ) -> Generator[None, None, None]:
        """Restore in parts no longer than a step, or of `num_frames` frames. The slot must not be used before the
        generator has ended; what was in it stays if the generator is closed early."""
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
        yield from self._putting(slot, restored, state.kv, num_frames=num_frames)

    def release(self, slot: int) -> None:
        """Forget this slot's session, if it has one; the slot can be started again."""
        self.ownership.assert_idle(slot)
        self._slots.pop(slot, None)

    def frame_index(self, slot: int) -> int:
        """Return the number of latent frames generated in this slot since its start."""
        state = self._started(slot)
        return (state.next_chunk - state.start_chunk) * self.config.chunk_frames

    def oldest_frame(self, slot: int) -> int:
        """Return the earliest frame that `rewind` can go back to in this slot."""
        state = self._started(slot)
        oldest = state.kv_checkpoints[0].next_chunk if state.kv_checkpoints else state.next_chunk
        return (oldest - state.start_chunk) * self.config.chunk_frames

    @inference_like_step
    def last_picture(self, slot: int) -> Tensor:
        """Decode the last pixel frame so far again: uint8 `h w 3`. Changes nothing."""
        state, chunk = self._started(slot), self.config.chunk_frames
        latents, _ = stacked(list(state.recent)[-chunk:])
        before = codec_state_after(self.model, list(state.recent)[:-chunk])
        return self.model.decode(latents[None], before)[0][0, -1]

    # ---- for the rollout

    def _as_data(self, slot: int, exact: bool) -> RolloutState:
        if exact:  # decoding changes the codec's state, which is computed anew otherwise
            self.ownership.assert_idle(slot)
        return self._slots[slot].as_data(history_frames(self.config), self.arena.copy_out(slot) if exact else None)

    def _keep_kv_checkpoint(self, slot: int) -> None:
        if self.timeline_chunks:
            state = self._slots[slot]
            state.kv_checkpoints.append(KVCheckpoint(state.next_chunk, self.arena.copy_out(slot), state.text))

    def _put(
        self, slot: int, state: Slot, kv: tuple[Tensor, ...] | None = None, *, keep_kv_checkpoint: bool = True
    ) -> None:
        """Put a session into a slot, with this K/V, or with K/V replayed from its record, in one part."""
        num_frames = len(state.sink) + len(state.recent)
        run_to_end(self._putting(slot, state, kv, num_frames=num_frames, keep_kv_checkpoint=keep_kv_checkpoint))

    def _putting(
        self,
        slot: int,
        state: Slot,
        kv: tuple[Tensor, ...] | None = None,
        *,
        num_frames: int | None = None,
        keep_kv_checkpoint: bool = True,
    ) -> Generator[None, None, None]:
        """Do what `_put` does, in parts of `num_frames` frames, by default no longer than a step."""
        self.ownership.assert_idle(slot)
        text = self._prompts.keys(state.text)
        if kv is not None:
            self.arena.copy_in(slot, kv)
        else:
            size = part_frames(self.model) if num_frames is None else num_frames
            committed = self._committed(state)
            first, keys = yield from replaying(self.model, committed, text, size)
            if self.config.sink_frames:
                self.arena.load(slot, 0, [sink for sink, _ in keys])
            self.arena.load(slot, first, [window for _, window in keys])
        self._prompts.put(slot, text)
        self._slots[slot] = state
        if keep_kv_checkpoint:
            self._keep_kv_checkpoint(slot)

    def _committed(self, state: Slot) -> list[FrameRecord]:
        """Return the committed frames that the cache can be computed from, the sink's first."""
        recent: Iterable[FrameRecord] = list(state.recent)[-history_frames(self.config) :]
        return [*state.sink, *recent][: -self.config.chunk_frames]

    def _resolve(self, slots: Sequence[int] | None) -> list[int]:
        chosen = sorted(self._slots) if slots is None else list(slots)
        self._check_slots(chosen)
        missing = [slot for slot in chosen if slot not in self._slots]
        if missing or not chosen:
            raise ShapeError(f"slots {missing or chosen} have not been started: call `start` first")
        return chosen

    def _started(self, slot: int) -> Slot:
        self.ownership.assert_owner()
        return self._slots[self._resolve([slot])[0]]

    def _check_slots(self, slots: Sequence[int]) -> None:
        if len(set(slots)) < len(slots) or not all(0 <= slot < self.num_slots for slot in slots):
            raise ShapeError(f"slots {list(slots)}: each must be listed once and be in 0 … {self.num_slots - 1}")
