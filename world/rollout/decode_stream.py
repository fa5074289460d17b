"""Decoding beside the passes of a rollout. Owns the stream that it has on a GPU; on a CPU there is nothing to own.

The one who decodes may be another thread than the one who steps. It waits for the step that made the latents and not
for those after it, and gives out pictures when they are there: so nothing that follows need know of the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class DecodeStream:
    """Work on `device` that may run while its main stream goes on."""

    def __init__(self, device: torch.device) -> None:
        self._main = torch.cuda.default_stream(device) if device.type == "cuda" else None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def mark(self) -> torch.cuda.Event | None:
        """All that this thread has asked of the device up to now."""
        return None if self._stream is None else torch.cuda.current_stream(self._stream.device).record_event()

    @contextmanager
    def after(self, marks: Iterable[torch.cuda.Event | None]) -> Iterator[None]:
        """What is asked for inside runs aside, once all that was marked is done; at the end it is waited for."""
        if self._stream is None:
            yield
            return
        for mark in marks:
            if mark is not None:
                self._stream.wait_event(mark)
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()

    def hand_over(self, made: Iterable[Tensor]) -> None:
        """Tensors that were made aside and will be read on the main stream: their memory is not used anew before."""
        if self._main is not None:
            for tensor in made:
                tensor.record_stream(self._main)
