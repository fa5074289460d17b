"""The send queue: control messages first, newer frames replace older ones, and both lanes are bounded."""

from __future__ import annotations

from server.wire.protocol import Queued, decode_server
from server.wire.send_queue import SendQueue


def send_queue(max_control: int = 4) -> tuple[SendQueue, list[None]]:
    """A send queue, and a list that grows with every call of `wake`."""
    wakes: list[None] = []
    return SendQueue(lambda: wakes.append(None), max_control=max_control), wakes


def drain(queue: SendQueue) -> list[bytes]:
    """Take everything that can be sent."""
    return list(iter(queue.take, None))


def test_control_messages_are_sent_before_frames() -> None:
    queue, wakes = send_queue()
    queue.put_frames(0, [b"frame"], keep=False)
    queue.put(Queued(position=1, eta_s=None))
    first, second = drain(queue)
    assert decode_server(first) == Queued(position=1, eta_s=None)
    assert second == b"frame"
    assert len(wakes) == 2


def test_a_newer_chunk_replaces_unsent_frames() -> None:
    queue, _ = send_queue()
    queue.put_frames(0, [b"a", b"b"], keep=False)
    assert queue.take() == b"a"
    queue.put_frames(2, [b"c", b"d"], keep=False)
    assert (drain(queue), queue.num_dropped) == ([b"c", b"d"], 1)


def test_frames_marked_keep_are_not_replaced() -> None:
    queue, _ = send_queue()
    queue.put_frames(0, [b"a"], keep=True)
    queue.put_frames(1, [b"b"], keep=False)
    queue.put_frames(2, [b"c"], keep=True)
    assert (drain(queue), queue.num_dropped) == ([b"a", b"c"], 1)


def test_it_knows_the_newest_frame_that_was_sent() -> None:
    queue, _ = send_queue()
    assert queue.last_taken == -1
    queue.put_frames(7, [b"a", b"b"], keep=True)
    queue.take()
    assert queue.last_taken == 7


def test_unread_replies_overflow_instead_of_growing() -> None:
    queue, _ = send_queue(max_control=4)
    for _ in range(1000):
        queue.put(Queued(position=1, eta_s=None))
    assert queue.overflowed
    assert len(drain(queue)) == 4


def test_control_messages_are_bounded_in_bytes_too() -> None:
    queue = SendQueue(lambda: None, max_control_bytes=10)
    queue.put_encoded(b"123456")
    assert not queue.overflowed
    queue.put_encoded(b"123456")
    assert queue.overflowed
    assert drain(queue) == [b"123456"]
    queue.put_encoded(b"1234567890")
    assert drain(queue) == [b"1234567890"], "sent messages no longer count"
