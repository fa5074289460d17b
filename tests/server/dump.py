"""The example in docs/protocol.md: the messages of a short session as bytes.

`python -m tests.server.dump` prints it, and a test compares it with the document. Owns the choice of the messages; the
bytes come from `server.wire.protocol`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from server.wire.protocol import Ack, Act, Frame, Hello, StartFrom, Timings, encode

BYTES_PER_LINE = 16

TINY_PNG = bytes.fromhex(  # a PNG of one red pixel, so that the frame fits a page
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c4944415408d763f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)
MESSAGES = (
    ("client", Hello(version=1, world="pong", encodings=("png",), start=StartFrom(index=0, seed=7))),
    ("client", Act(seq=1, buttons=("up",), t_client=1234.5)),
    (
        "server",
        Frame(
            index=1,
            chunk=1,
            run=0,
            run_frame=1,
            kind="generated",
            end_of_chunk=True,
            encoding="png",
            payload=TINY_PNG,
            applied_seq=1,
            t_client_echo=1234.5,
            timings=Timings(queue_ms=4.0, step_ms=12.5, decode_ms=3.0, encode_ms=0.25, batch_size=2),
        ),
    ),
    ("client", Ack(frame=1)),
)


def lines() -> Iterator[str]:
    """Yield each message with its sender and length, then its bytes: offset, hexadecimal, printable characters."""
    for sender, message in MESSAGES:
        data = encode(message)
        yield f"{sender} {type(message).__name__} ({len(data)} bytes)"
        for offset in range(0, len(data), BYTES_PER_LINE):
            part = data[offset : offset + BYTES_PER_LINE]
            shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
            yield f"  {offset:04x}  {part.hex(' '):<47}  {shown}".rstrip()


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
