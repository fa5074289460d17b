"""Probes: figures read from pictures. Owns which world has which probes, and the one figure for comparing worlds."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from distill.evaluation.generators import copy_last
from distill.evaluation.pong import agreement, check_detector, pong_figures
from distill.evaluation.quality import psnr
from distill.evaluation.starts import Starts
from world.card import WorldCard


def has_pong_probes(card: WorldCard) -> bool:
    """Return whether the world imitates Pong."""
    return bool(card.provenance.get("environment", card.name) == "pong")


def has_doom_probes(card: WorldCard) -> bool:
    """Return whether the world imitates Doom."""
    return bool(card.provenance.get("environment", card.name) == "doom")


def probe_figures(card: WorldCard, starts: Starts, frames: Tensor) -> dict[str, float]:
    """Return the figures of Pong's probes; none for other worlds."""
    if not has_pong_probes(card):
        return {}
    return pong_figures(starts.truth.numpy(), frames.numpy(), starts.actions.buttons.numpy())


def probe_check(card: WorldCard, starts: Starts, rebuilt: Tensor) -> dict[str, Any]:
    """Return how accurate Pong's probes are on codec reconstructions; nothing for other worlds."""
    return check_detector(starts.truth.numpy(), rebuilt.numpy()) if has_pong_probes(card) else {}


def quality(card: WorldCard, starts: Starts, frames: Tensor) -> float:
    """Return the quality of generated clips as one figure; higher is better.

    Pong: `agreement`, how near the moving objects are to their true positions (0 … 1). PSNR is unsuitable there: most
    of the picture never changes, so a world without any ball is within a few per cent of a perfect one. Other worlds:
    the gain in PSNR over copying the last context picture, in dB, in which the still part cancels.
    """
    if has_pong_probes(card):
        return agreement(starts.truth.numpy(), frames.numpy())
    return float((psnr(frames, starts.truth) - psnr(copy_last(starts), starts.truth)).mean())
