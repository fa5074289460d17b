"""Worlds whose pictures can be read. Owns which world has a reader, and the one figure by which worlds are compared."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from distill.evaluation.generators import copy_last
from distill.evaluation.pong import agreement, check_detector, pong_figures
from distill.evaluation.quality import psnr
from distill.evaluation.starts import Starts
from world.card import WorldCard


def has_pong_probes(card: WorldCard) -> bool:
    return bool(card.provenance.get("environment", card.name) == "pong")


def has_doom_probes(card: WorldCard) -> bool:
    return bool(card.provenance.get("environment", card.name) == "doom")


def probe_figures(card: WorldCard, starts: Starts, frames: Tensor) -> dict[str, float]:
    """Figures only this world has, from reading its pictures; none for worlds without a reader."""
    if not has_pong_probes(card):
        return {}
    return pong_figures(starts.truth.numpy(), frames.numpy(), starts.actions.buttons.numpy())


def probe_check(card: WorldCard, starts: Starts, rebuilt: Tensor) -> dict[str, Any]:
    """How well the reader reads codec reconstructions."""
    return check_detector(starts.truth.numpy(), rebuilt.numpy()) if has_pong_probes(card) else {}


def quality(card: WorldCard, starts: Starts, frames: Tensor) -> float:
    """How true generated clips are, in one figure: higher is better.

    With a reader: `agreement`, the nearness of the things that move to where they truly are (0 … 1). PSNR would not do:
    most of the picture never moves, so that a world without any ball is within a few per cent of a perfect one.
    Without a reader: PSNR gained over copying the last context picture, in dB; the still part is in both.
    """
    if has_pong_probes(card):
        return agreement(starts.truth.numpy(), frames.numpy())
    return float((psnr(frames, starts.truth) - psnr(copy_last(starts), starts.truth)).mean())
