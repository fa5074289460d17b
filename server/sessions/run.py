"""What a session can start from, and the run that begins there. Owns a run's position and how it got there; knows no
time and no tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
from numpy.typing import NDArray

from server.errors import UnknownFrameError
from server.sessions.action_log import ActionLog
from server.sessions.branches import Branch, Origin
from server.wire import protocol

if TYPE_CHECKING:
    from world import RolloutState


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StartRequest:
    """Start from the world's start `index`, or from `pictures` (uint8 `t h w 3` of the world's size).

    The first picture fills the context before the others.
    """

    index: int = 0
    pictures: NDArray[np.uint8] | None = None
    seed: int = 0
    control_seq: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BranchRequest:
    """Continue from a branch."""

    branch: Branch
    control_seq: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RewindRequest:
    """Go back to a frame of the run."""

    run_frame: int
    control_seq: int | None = None


SLACK_S, MAX_SLACK_CHUNKS = 4.25, 128
"""How long a session may be stepped between a request to rewind or fork and its execution."""

RunRequest = StartRequest | BranchRequest | RewindRequest


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """Make a branch at a frame of the run; the server keeps it, or sends it to the player (`as_file`)."""

    run_frame: int
    control_seq: int | None
    as_file: bool = False


def slack_chunks(period_s: float) -> int:
    """Return how many chunks of `period_s` are kept beyond what a player can go back, for requests that wait."""
    return min(MAX_SLACK_CHUNKS, math.ceil(SLACK_S / period_s))


@dataclass(slots=True)
class Run:
    """One run of a session.

    frame: the number of the newest picture, generated or being generated, counted from the run's start;
    first_frame: the oldest frame whose state is kept; timeline_frames: how many frames a rewind can go back;
    slack_chunks: how many chunks more are kept.
    """

    world: str
    chunk_frames: int
    timeline_frames: int
    slack_chunks: int
    number: int = -1
    frame: int = 0
    first_frame: int = 0
    origin: Origin = field(default_factory=lambda: Origin(None, 0))
    log: ActionLog = field(default_factory=ActionLog)

    def begin(self, request: RunRequest) -> None:
        """Begin the next run as requested."""
        self.number += 1
        match request:
            case StartRequest():
                self.origin = Origin(request.index if request.pictures is None else None, request.seed)
                self.log, self.frame, self.first_frame = ActionLog(), 0, 0
            case BranchRequest(branch=branch):
                self.origin, self.log = branch.origin, branch.log.copy()
                self.frame = self.first_frame = branch.run_frame
            case RewindRequest():
                self.first_frame = min(self._oldest(), request.run_frame)  # what is older is no longer kept
                self.log.cut(request.run_frame // self.chunk_frames)
                self.frame = request.run_frame
            case _:
                assert_never(request)

    def check_frame(self, run_frame: int) -> None:
        """Raise UnknownFrameError for a frame that a rewind or fork cannot reach."""
        oldest = self._oldest()
        if self.number < 0 or run_frame % self.chunk_frames or not oldest <= run_frame <= self.frame:
            steps = "" if self.chunk_frames == 1 else f", in steps of {self.chunk_frames}"
            raise UnknownFrameError(f"frame {run_frame}: this run can go back to {oldest} to {self.frame}{steps}")

    def keeps(self, run_frame: int) -> bool:
        """Return whether a frame that `check_frame` accepted can still be reached: meanwhile the run may have moved too
        far ahead, been suspended, or given way to another one."""
        oldest = max(self.first_frame, self._oldest() - self.slack_chunks * self.chunk_frames)
        return oldest <= run_frame <= self.frame

    def refusals(self, run_frame: int, seqs: Iterable[int | None]) -> list[protocol.ServerMessage]:
        """Return the answers to controls that requested a frame whose state is no longer kept."""
        error = UnknownFrameError(f"frame {run_frame}: its state is no longer kept; the run has reached {self.frame}")
        return [protocol.error_reply(error, "control", seq) for seq in seqs]

    def _oldest(self) -> int:
        """Return the first frame that a rewind can reach."""
        oldest = max(self.first_frame, self.frame - self.timeline_frames)
        return oldest + -oldest % self.chunk_frames

    def branch(self, state: RolloutState, run_frame: int) -> Branch:
        """Return this run at `run_frame`, where its rollout was in `state`."""
        log = self.log.copy()
        log.cut(run_frame // self.chunk_frames)
        return Branch(world=self.world, state=state, run_frame=run_frame, origin=self.origin, log=log)

    def copy(self) -> Run:
        return replace(self, log=self.log.copy())

    def to_data(self) -> dict[str, Any]:
        """Return plain values for `restore`."""
        return {
            "number": self.number,
            "frame": self.frame,
            "start_index": self.origin.start_index,
            "seed": self.origin.seed,
            "log": self.log.to_data(),
        }

    def restore(self, data: dict[str, Any]) -> None:
        """Become the run that `to_data` described; no rewind reaches frames before its newest one.

        Raise KeyError, TypeError or ValueError.
        """
        self.number, self.frame = data["number"], data["frame"]
        self.first_frame = self.frame
        self.origin = Origin(data["start_index"], data["seed"])
        self.log = ActionLog.from_data(data["log"])

    def logged(self, seq: int | None) -> protocol.ActionLog:
        """Return the log in the form of the wire."""
        return protocol.ActionLog(
            seq=seq,
            start_index=self.origin.start_index,
            seed=self.origin.seed,
            inputs=self.log.entries(),
            complete=self.log.complete,
        )
