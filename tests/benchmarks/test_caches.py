"""The alternative caches give the ring's results: same network, same past, beyond the ring's wrap."""

import warnings

import pytest
import torch

from benchmarks.caches import Stepper, Way
from world.testing import tiny_world

TOLERANCE = 1e-4


@pytest.fixture
def stepper() -> Stepper:
    return Stepper(tiny_world(), 2)


def _eager(stepper: Stepper) -> dict[str, Way]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flex_attention advises compiling
        return {way.name: way for way in stepper.ways() if way.name.endswith("eager")}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_steps_are_equal(stepper: Stepper) -> None:
    ways = _eager(stepper)
    assert len(ways) == 3
    found = []
    for number in range(stepper.config.window_chunks + 3):
        ring, *others = (stepper.step(way, number) for way in ways.values())
        for other in others:
            torch.testing.assert_close(other, ring, atol=TOLERANCE, rtol=TOLERANCE)
        found.append(ring)
    assert not torch.allclose(found[0], found[-1], atol=0.01), "the cache's content matters"


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_timed_parts_are_equal(stepper: Stepper) -> None:
    ring, *others = (way.part(2, stepper.raw[2], stepper.rotations[2]) for way in _eager(stepper).values())
    for other in others:
        torch.testing.assert_close(other, ring, atol=TOLERANCE, rtol=TOLERANCE)
