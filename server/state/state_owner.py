"""What a stored or saved state is checked against. Owns the interface; the model runner of a world implements it."""

from __future__ import annotations

from typing import Protocol

from world.rollout.timeline import RolloutState


class StateOwner(Protocol):
    """A world that can restore states."""

    fingerprint: str
    """Differs where a state cannot be restored: another codec, another student, other buttons or axes."""

    former_fingerprint: str
    """The same as releases before the present formats wrote it; it knows no student and no axes."""

    @property
    def chunk_pixel_frames(self) -> int: ...

    def check(self, state: RolloutState) -> None:
        """Raise world.errors.ShapeError for a state of another world, or one with values that are not finite."""

    def run_frame_of(self, state: RolloutState) -> int:
        """Return how many pixel frames the state's run has generated."""
