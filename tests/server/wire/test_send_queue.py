"""Two lanes: control first, frames latest-wins, both bounded."""

from __future__ import annotations

from server.wire.protocol import Queued, decode_server
from server.wire.send_queue import SendQueue


def send_queue(max_control: int = 4) -> tuple[SendQueue, list[None]]:
    woken: list[None] = []
    return SendQueue(lambda: woken.append(None), max_control=max_control), woken


def taken(box: SendQueue) -> list[bytes]:
    return list(iter(box.take, None))


def test_control_messages_leave_before_frames() -> None:
    box, woken = send_queue()
    box.put_frames(0, [b"frame"], keep=False)
    box.put(Queued(position=1, eta_s=None))
    first, second = taken(box)
    assert decode_server(first) == Queued(position=1, eta_s=None)
    assert second == b"frame"
    assert len(woken) == 2


def test_a_newer_chunk_replaces_what_has_not_left() -> None:
    box, _ = send_queue()
    box.put_frames(0, [b"a", b"b"], keep=False)
    assert box.take() == b"a"
    box.put_frames(2, [b"c", b"d"], keep=False)
    assert (taken(box), box.num_dropped) == ([b"c", b"d"], 1)


def test_frames_that_must_be_seen_are_not_replaced() -> None:
    box, _ = send_queue()
    box.put_frames(0, [b"a"], keep=True)
    box.put_frames(1, [b"b"], keep=False)
    box.put_frames(2, [b"c"], keep=True)
    assert (taken(box), box.num_dropped) == ([b"a", b"c"], 1)


def test_it_knows_the_newest_frame_that_has_left() -> None:
    box, _ = send_queue()
    assert box.last_taken == -1
    box.put_frames(7, [b"a", b"b"], keep=True)
    box.take()
    assert box.last_taken == 7


def test_unread_replies_overflow_instead_of_growing() -> None:
    box, _ = send_queue(max_control=4)
    for _ in range(1000):
        box.put(Queued(position=1, eta_s=None))
    assert box.overflowed
    assert len(taken(box)) == 4


def test_control_messages_are_bounded_in_bytes_too() -> None:
    box = SendQueue(lambda: None, max_control_bytes=10)
    box.put_encoded(b"123456")
    assert not box.overflowed
    box.put_encoded(b"123456")
    assert box.overflowed
    assert taken(box) == [b"123456"]
    box.put_encoded(b"1234567890")
    assert taken(box) == [b"1234567890"], "what has left counts no more"
