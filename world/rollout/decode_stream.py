"""Decoding beside a rollout's passes. Owns the CUDA stream for it; on a CPU it does nothing.

One thread may decode while another steps. Decoding waits for the step that made its latents, but not for later steps,
and returns only when the frames are ready, so callers need to know nothing of the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class DecodeStream:
    """Work on `device` that may run at the same time as its main stream."""

    def __init__(self, device: torch.device) -> None:
        self._main = torch.cuda.default_stream(device) if device.type == "cuda" else None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def mark(self) -> torch.cuda.Event | None:
        """Return an event after everything that this thread has launched on the device so far."""
        return None if self._stream is None else torch.cuda.current_stream(self._stream.device).record_event()

    @contextmanager
    def after(self, events: Iterable[torch.cuda.Event | None]) -> Iterator[None]:
        """Run the block on the decode stream once all `events` have happened; wait for it at the end."""
        if self._stream is None:
            yield
            return
        for event in events:
            if event is not None:
                self._stream.wait_event(event)
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """Declare that tensors made on the decode stream will be read on the main one, so that their memory is not
        reused too early."""
        if self._main is not None:
            for tensor in tensors:
                tensor.record_stream(self._main)
