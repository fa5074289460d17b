"""What a frame costs beside the model is measured while frames are sent."""

from __future__ import annotations

import threading
import time

import pytest

from server.telemetry.frame_cost import FEWEST, MOST_S, UNMEASURED_S, FrameCost


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="the system does not tell it")
def test_the_processor_time_of_the_event_loop_is_shared_by_its_frames() -> None:
    cost, spin, ready, done = FrameCost(), threading.Event(), threading.Event(), threading.Event()

    def loop() -> None:
        cost.watch()
        ready.set()
        spin.wait(10)
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass
        cost.sent(100)
        done.wait(10)

    thread = threading.Thread(target=loop)
    thread.start()
    ready.wait(10)
    cost.sample(0.0)
    spin.set()
    while cost._num_sent < 100:
        time.sleep(0.01)
    cost.encoded(0.05)
    cost.sample(1.0)
    assert 0.0015 <= cost.frame_s < 0.0018, "0.1 s of the loop and 0.05 s of encoding for a hundred frames"
    done.set()
    thread.join()
    cost.sent(100)
    cost.sample(2.0)  # the thread has ended: no fault


def test_a_second_with_few_frames_says_nothing() -> None:
    cost = FrameCost()
    cost.sample(0.0)
    cost.sent(FEWEST - 1)
    cost.encoded(1.0)
    cost.sample(1.0)
    assert cost.frame_s == UNMEASURED_S


def test_a_flood_counts_for_no_more_than_dear_frames() -> None:
    cost = FrameCost()
    cost.sample(0.0)
    cost.encoded(0.9)
    cost.sent(30)
    cost.sample(1.0)
    assert cost.frame_s == MOST_S


def test_one_disturbed_second_does_not_count() -> None:
    cost = FrameCost()
    cost.sample(0.0)
    for second, encoded_s in enumerate((0.1, 0.1, 9.0, 0.1), 1):
        cost.encoded(encoded_s)
        cost.sent(100)
        cost.sample(float(second))
        cost.sample(second + 0.5)  # too early
    assert cost.frame_s == pytest.approx(0.001)
