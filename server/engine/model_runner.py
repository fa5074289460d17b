"""The rollouts behind the sessions: warm-up, steps and padding. Owns all the server's tensors.

There is one `ModelRunner` per served world. The model thread calls `begin`, `fork`, `step` and `release`; the decode
thread calls `decode`, never while one of its slots is being filled or copied. Knows no sessions, no sockets and no
protocol beyond the world's description.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from server.admission.capacity import tick_ms
from server.admission.tick_times import TickTimes
from server.compilation.parts import sizes_to_compile
from server.engine.fingerprint import fingerprint, former_fingerprint
from server.engine.padding import Padding
from server.engine.session_memory import session_memory
from server.engine.timed_sessions import TimedSessions
from server.sessions.input_buffer import Sample
from server.sessions.run import BranchRequest, RewindRequest, RunRequest, StartRequest
from server.wire.protocol import AxisInfo, ButtonInfo, Usual, WorldInfo
from world import Actions, RolloutState, World
from world.device import num_cores
from world.rollout.parts import run_to_end
from world.rollout.snapshots import check_codec_state, check_state

WorldLoader = Callable[[], World]
OnThread = Callable[[Callable[[], Any]], Any]
WARM_STEPS, WARM_S = 3, 0.5
"""At least this many steps of every batch size, repeated for this long, because any machine is slow now and then."""
FEW_CORES = 2


@dataclass(frozen=True, slots=True)
class Stepped:
    """One batched step: its latents (`b chunk c h w`, padding last), how long it took, with how many threads, and on a
    GPU the event after which they are computed."""

    latents: Any
    step_ms: float
    num_threads: int
    ready: Any = None


class ModelRunner:
    """A world with `num_slots` slots for players, one for previews, and spare ones for padding: to `buckets`; without
    them, on a CPU, to a size that is faster (`Padding`).

    timeline_frames: how many pixel frames a rewind should be able to go back, if the past of a session fits into
    `session_bytes`. sample: the state of a session of nobody, on a CPU, once warm. num_threads: the most per step.
    """

    def __init__(
        self,
        world: World,
        num_slots: int,
        max_batch: int,
        buckets: Sequence[int],
        *,
        timeline_frames: int = 0,
        session_bytes: int = 2**62,
    ) -> None:
        self.world = world
        self.num_slots = num_slots
        self.max_batch = min(max_batch, num_slots)
        worthwhile = sizes_to_compile(self.max_batch) if world.device.type == "cpu" else ()
        self.padding = Padding(self.max_batch, buckets, worthwhile)
        self._spare = tuple(range(num_slots, num_slots + self.padding.num_spare))
        self.preview_slot = num_slots + self.padding.num_spare
        self.memory = session_memory(world, timeline_frames, session_bytes)
        self._rollout = world.rollout(self.preview_slot + 1, timeline_chunks=self.memory.timeline_chunks)
        self.tick_times = TickTimes()
        self._decode_ms: dict[int, float] = {}
        self._measured: dict[int, tuple[float, int]] = {}  # milliseconds and number of threads, by batch size
        self.sample: RolloutState | None = None
        self.num_threads = torch.get_num_threads()
        self.threads_used: dict[int, int] = {}  # by the newest step of each batch size
        self.fingerprint, self.former_fingerprint = fingerprint(world), former_fingerprint(world)

    @property
    def chunk_pixel_frames(self) -> int:
        """Return how many pixel frames one step generates."""
        return self.world.chunk_pixel_frames

    @property
    def context_frames(self) -> int:
        """Return the most pixel frames that a start can use."""
        return self.world.context_pixel_frames

    def check(self, state: RolloutState) -> None:
        """Raise world.errors.ShapeError for a state of another world, or one with values that are not finite."""
        check_state(self.world, state)
        if state.kv is not None:
            self._rollout.arena.check(state.kv)
            check_codec_state(self.world, state)

    def run_frame_of(self, state: RolloutState) -> int:
        """Return how many pixel frames the state's run has generated."""
        return (state.next_chunk - state.start_chunk) * self.chunk_pixel_frames

    @property
    def latency_ms(self) -> Mapping[int, float]:
        """Return milliseconds per tick (`tick_ms`) as they are now, by batch size."""
        return self.tick_times.now_ms

    def warm_up(self, on_decode_thread: OnThread) -> None:
        """Run every batch size that can occur, first cold and then timed, so that no player waits for a first call.

        Each part runs on the thread that will run it later: torch warms up some things per thread.
        """
        slots = (*range(self.num_slots), *self._spare)
        blank = np.zeros((1, self.world.card.height, self.world.card.width, 3), dtype=np.uint8)
        for slot in slots:
            self.start(slot, StartRequest(pictures=blank))
        sizes = range(1, self.max_batch + 1)  # the decoder gets each size, the model its bucket
        times_ms: dict[int, list[float]] = {size: [] for size in sizes}
        steps_ms: dict[int, list[float]] = {size: [] for size in sizes}
        until = time.perf_counter() + WARM_S
        while not times_ms[1] or time.perf_counter() < until:
            for size in sizes:
                for _ in range(WARM_STEPS):
                    began = time.perf_counter()
                    stepped = self.step([Sample()] * size, slots[:size])
                    on_decode_thread(partial(self.decode, stepped, slots[:size]))
                    times_ms[size].append((time.perf_counter() - began) * 1e3)
                    steps_ms[size].append(stepped.step_ms)
        self.num_threads = torch.get_num_threads()
        for size, steps in steps_ms.items():
            self._decode_ms[size] = max(0.0, min(times_ms[size][1:]) - min(steps[1:]))
            self.note_step(size, min(steps[1:]), self.threads_used[size])
        if self.world.device.type == "cpu":
            self.sample = self._rollout.snapshot(0, exact=True)
            self._measure_with_most_threads(self.sample)
        for slot in range(self.num_slots):
            self.release(slot)

    def _measure_with_most_threads(self, sample: RolloutState) -> None:
        """Measure sizes that begin with fewer threads than possible, because that is robust, with the most as well:
        when played, they use what is faster then. Not a single session, whose ticks admission sees first."""
        for size in range(2, self.max_batch + 1):
            if self.threads_used[size] < self.num_threads:
                sessions = TimedSessions(self.world, sample, size)
                steps_ms = [sessions.step_ms(self.num_threads) for _ in range(1 + WARM_STEPS)]
                self.note_step(size, min(steps_ms[1:]), self.num_threads)

    def note_step(self, size: int, step_ms: float, num_threads: int) -> None:
        """Note how long an unpadded step of `size` takes with this number of threads and the code that is used from now
        on. It counts if no other number is faster. Call it on the thread that decodes, which reports the ticks."""
        before_ms, before_threads = self._measured.get(size, (step_ms, num_threads))
        if num_threads != before_threads and step_ms >= before_ms:
            return
        self._measured[size] = step_ms, num_threads
        self.padding.note(size, step_ms)
        self.tick_times.measure(size, self._tick_ms(step_ms, self._decode_ms[size], num_threads))

    def note_tick(self, size: int, stepped: Stepped, decode_ms: float) -> None:
        """Note what a tick of those who play took. Called on the thread that decodes."""
        self.tick_times.note(size, self._tick_ms(stepped.step_ms, decode_ms, stepped.num_threads))

    def _tick_ms(self, step_ms: float, decode_ms: float, num_threads: int) -> float:
        if self.world.device.type != "cpu":
            return step_ms + decode_ms  # both run on the device
        return tick_ms(step_ms, decode_ms, num_threads, num_cores())

    def use_native_attention(self) -> None:
        """Use attention's machine code from the next step on; it must have been loaded."""
        self.world.kernel_choice = replace(self.world.kernel_choice, native_attention=True)
        arena = self._rollout.arena
        arena.rings = replace(arena.rings, kernel_choice=self.world.kernel_choice)

    def likely_threads(self, size: int) -> int:
        """Return the number of threads that steps of `size` sessions were the fastest with."""
        return self._measured.get(size, (0.0, self.num_threads))[1]

    def compare_threads_again(self) -> None:
        """Compare numbers of threads again, because steps have become different."""
        self._rollout.threads.forget()

    def begin(self, slot: int, request: RunRequest) -> Generator[None, None, NDArray[np.uint8]]:
        """Fill a slot as requested, in parts no longer than a step. Return the run's first picture, uint8 `h w 3`.

        The slot cannot be used until then.
        """
        match request:
            case StartRequest():
                return (yield from self._starting(slot, request))
            case BranchRequest(branch=branch):
                yield from self.restore(slot, branch.state)
                yield
            case RewindRequest():
                yield from self._rollout.rewinding(slot, self._latent_frame(request.run_frame))
            case _:
                assert_never(request)
        return np.asarray(self._rollout.last_picture(slot).cpu())

    def fork(self, slot: int, run_frame: int, *, exact: bool) -> Generator[None, None, RolloutState]:
        """Return the state of `slot` as it was at `run_frame`, in parts no longer than a step; exact: as in `snapshot`.

        The slot cannot be used until then.
        """
        exact = exact and self.memory.copies_kv
        return self._rollout.snapshotting(slot, exact=exact, frame=self._latent_frame(run_frame))

    def snapshot(self, slot: int, *, exact: bool) -> RolloutState:
        """Return the state of `slot`, with its K/V if `exact` and there is memory for them; else it is far smaller, and
        K/V are replayed from it."""
        return self._rollout.snapshot(slot, exact=exact and self.memory.copies_kv)

    def restore(self, slot: int, state: RolloutState) -> Generator[None, None, None]:
        """Put a state into `slot`, in parts no longer than a step."""
        return self._rollout.restoring(slot, state)

    def release(self, slot: int) -> None:
        """Release what a departed session left in `slot`."""
        self._rollout.release(slot)

    def _latent_frame(self, run_frame: int) -> int:
        return run_frame // self.world.codec.temporal_patch

    def start(self, slot: int, request: StartRequest) -> NDArray[np.uint8]:
        """Fill a slot from a start of the world or from pictures. Return the context's last picture."""
        return run_to_end(self._starting(slot, request))

    def _starting(self, slot: int, request: StartRequest) -> Generator[None, None, NDArray[np.uint8]]:
        if request.pictures is None:
            context = self.world.starts[request.index]
            frames, actions = context.frames[None].numpy(), context.actions
        else:
            frames = request.pictures[None]
            actions = self._actions([Sample()]).repeat(len(request.pictures))
        yield from self._rollout.starting([slot], frames, actions, [request.seed])
        last: NDArray[np.uint8] = frames[0, -1]
        return last

    def step(self, samples: Sequence[Sample], slots: Sequence[int]) -> Stepped:
        """Generate the next chunk of `slots` in one batched step, padded with spare slots."""
        began = time.perf_counter()
        padding = self.padding.padded(len(slots)) - len(slots)
        actions = self._actions([*samples, *[Sample()] * padding])
        latents = self._rollout.step_latents(actions, slots=[*slots, *self._spare[:padding]])
        self.threads_used[len(slots)] = num_threads = self._rollout.threads.last
        step_ms = (time.perf_counter() - began) * 1e3
        return Stepped(latents, step_ms, num_threads, self._rollout.ready(slots[0]))

    def decode(self, stepped: Stepped, slots: Sequence[int]) -> NDArray[np.uint8]:
        """Return the pixel frames of the players' slots, uint8 `b f h w 3`."""
        frames = self._rollout.decode(stepped.latents[: len(slots)], list(slots), stepped.ready)
        return np.asarray(frames.cpu())

    def _actions(self, samples: Sequence[Sample]) -> Actions:
        actions = self.world.actions([sample.buttons for sample in samples])
        for row, sample in enumerate(samples):
            for column, axis in enumerate(self.world.card.axes):
                actions.axes[row, :, column] = sample.axes.get(axis.name, 0.0)
        return actions


def world_info(name: str, world: World) -> WorldInfo:
    """Return the world's card in the form of the wire, under the name it is served by."""
    card = world.card
    return WorldInfo(
        name=name,
        title=card.title,
        description=card.description,
        fps=card.fps,
        height=card.height,
        width=card.width,
        buttons=tuple(ButtonInfo(name=b.name, label=b.label, keys=b.keys) for b in card.buttons),
        axes=tuple(AxisInfo(name=a.name, label=a.label, low=a.low, high=a.high, source=a.source) for a in card.axes),
        exclusive_buttons=card.exclusive_buttons,
        chunk_frames=world.chunk_pixel_frames,
        starts=tuple(start.name for start in world.starts),
        data_license=card.data_license,
        statistics={name: Usual(mean=mean, deviation=usual) for name, (mean, usual) in card.statistics.items()},
        pixelated=card.pixelated,
    )


def share_cores(num_threads: int | None, on_decode_thread: OnThread) -> None:
    """Use `num_threads` for the tensor operations of the calling thread, the model's (None: torch's choice).

    On few cores the decoder gets one thread, because it runs beside the model.
    """
    model_threads = num_threads or torch.get_num_threads()
    on_decode_thread(partial(_use_threads, 1 if num_cores() <= FEW_CORES else model_threads))
    _use_threads(model_threads)


def _use_threads(num_threads: int) -> None:
    """Set the number for the calling thread, and for threads that have not used torch yet."""
    torch.get_num_threads()  # a thread's first call of torch adopts the newest setting of any thread
    torch.set_num_threads(num_threads)
