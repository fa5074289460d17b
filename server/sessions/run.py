"""What a session may be asked to play from, and the run that comes of it. Owns where a run stands and what led there;
knows no time and no tensors."""

from __future__ import annotations

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
    """From the world's start `index`, or from `pictures` (uint8 `t h w 3`, the world's size), the first held still
    before the others."""

    index: int = 0
    pictures: NDArray[np.uint8] | None = None
    seed: int = 0
    control_seq: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BranchRequest:
    """Go on from a branch."""

    branch: Branch
    control_seq: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RewindRequest:
    """Go back to a frame of the run."""

    run_frame: int
    control_seq: int | None = None


SLACK_CHUNKS = 128
"""Chunks that may be made between a request to go back and its being carried out."""

RunRequest = StartRequest | BranchRequest | RewindRequest


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """Make a branch at a frame of the run; to be kept here, or to be sent as a file."""

    run_frame: int
    control_seq: int | None
    as_file: bool = False


@dataclass(slots=True)
class Run:
    """`frame`: the number of the newest picture that is made or being made, counted from the beginning of what led
    there; `first_frame`: where what can be gone back to begins. `timeline_frames`: how far back one can go."""

    world: str
    chunk_frames: int
    timeline_frames: int
    number: int = -1
    frame: int = 0
    first_frame: int = 0
    origin: Origin = field(default_factory=lambda: Origin(None, 0))
    log: ActionLog = field(default_factory=ActionLog)

    def begin(self, request: RunRequest) -> None:
        """Another run, as asked for."""
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
        """Raises UnknownFrameError for a frame that cannot be gone back to."""
        oldest = self._oldest()
        if self.number < 0 or run_frame % self.chunk_frames or not oldest <= run_frame <= self.frame:
            steps = "" if self.chunk_frames == 1 else f", in steps of {self.chunk_frames}"
            raise UnknownFrameError(f"frame {run_frame}: this run can go back to {oldest} to {self.frame}{steps}")

    def check_kept(self, run_frame: int) -> None:
        """Raises UnknownFrameError where the run went on too far since `check_frame` had nothing against this frame."""
        if run_frame < self._oldest() - SLACK_CHUNKS * self.chunk_frames:
            raise UnknownFrameError(f"frame {run_frame}: it was let go meanwhile; the run has reached {self.frame}")

    def _oldest(self) -> int:
        """The first frame that can be gone back to."""
        oldest = max(self.first_frame, self.frame - self.timeline_frames)
        return oldest + -oldest % self.chunk_frames

    def branch(self, state: RolloutState, run_frame: int) -> Branch:
        """This run at `run_frame`, where its rollout was in `state`."""
        log = self.log.copy()
        log.cut(run_frame // self.chunk_frames)
        return Branch(world=self.world, state=state, run_frame=run_frame, origin=self.origin, log=log)

    def copy(self) -> Run:
        return replace(self, log=self.log.copy())

    def to_data(self) -> dict[str, Any]:
        """Plain values that `restore` makes the same of."""
        return {
            "number": self.number,
            "frame": self.frame,
            "start_index": self.origin.start_index,
            "seed": self.origin.seed,
            "log": self.log.to_data(),
        }

    def restore(self, data: dict[str, Any]) -> None:
        """What is before the newest frame cannot be gone back to any more. Raises KeyError, TypeError or ValueError."""
        self.number, self.frame = data["number"], data["frame"]
        self.first_frame = self.frame
        self.origin = Origin(data["start_index"], data["seed"])
        self.log = ActionLog.from_data(data["log"])

    def logged(self, seq: int | None) -> protocol.ActionLog:
        """The log as the wire has it."""
        return protocol.ActionLog(
            seq=seq,
            start_index=self.origin.start_index,
            seed=self.origin.seed,
            inputs=self.log.entries(),
            complete=self.log.complete,
        )
