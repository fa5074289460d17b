"""Which thread may do what with a rollout. Owns the assertion; costs two comparisons a call.

One thread owns a rollout: the first that uses it, until it hands it over. It alone starts, steps, rewinds, restores,
copies and releases slots. Any one other thread may decode meanwhile, but not a slot that is being filled, copied or
released: the codec's state of that slot belongs to whoever decodes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Ownership:
    """The owner of one rollout, and the slots that are being decoded."""

    def __init__(self) -> None:
        self._thread: int | None = None
        self._decoded: set[int] = set()

    def hand_over(self) -> None:
        """Let the next thread that uses the rollout own it. Call it from the owner, or once that has ended."""
        self._thread = None

    def assert_owner(self) -> None:
        """Raise AssertionError unless the calling thread owns the rollout. The first caller does from then on."""
        thread = threading.get_ident()
        if self._thread is None:
            self._thread = thread
        if self._thread != thread:
            raise AssertionError(
                "this rollout belongs to another thread, which alone may do anything but decode; call `hand_over` there"
            )

    def assert_idle(self, slot: int) -> None:
        """Raise AssertionError unless the calling thread owns the rollout and nobody decodes `slot`."""
        self.assert_owner()
        if slot in self._decoded:
            raise AssertionError(f"slot {slot} is being decoded; wait until that is done before it is filled or copied")

    @contextmanager
    def decoding(self, slots: Iterable[int]) -> Iterator[None]:
        """Note that these slots are decoded inside. Raise AssertionError if another thread decodes one of them."""
        chosen = frozenset(slots)
        if not self._decoded.isdisjoint(chosen):
            raise AssertionError(f"slots {sorted(self._decoded & chosen)} are being decoded by another thread")
        self._decoded |= chosen
        try:
            yield
        finally:
            self._decoded -= chosen
