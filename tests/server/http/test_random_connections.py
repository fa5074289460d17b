"""Connections that do anything at any time, while parts of the server fail: nothing of them is left behind.

Hypothesis rules over a real server on loopback sockets. A few hundred connections here; ten thousand if slow tests run.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from PIL import Image

from server.config import ServerConfig
from server.http.connection import Connection
from server.sessions.session import Session
from server.telemetry.tracing import Tracer
from server.wire.protocol import (
    Ack,
    Act,
    Bye,
    Fork,
    Forked,
    Frame,
    GetLog,
    Pause,
    Play,
    Rewind,
    Save,
    Saved,
    ServerMessage,
    SetPacing,
    SetSpeed,
    Start,
    StartFrom,
    Step,
    Welcome,
    encode,
)
from server.wire.send_queue import SendQueue
from tests.server.http.peer import BINARY, CLOSE, CONTINUATION, HANDSHAKE, PING, PONG, TEXT, Manner, Peer
from tests.server.raw import hello, raw_client
from tests.server.serving import RunningServer, serve
from tests.server.waiting import until
from world.testing import tiny_world

CONFIG = ServerConfig(
    max_sessions=3,
    queue_limit=3,
    num_threads=1,
    headroom=None,
    handshake_timeout_s=0.5,
    hold_s=0.1,
    resume_s=0.5,
    send_timeout_s=1.0,
    max_image_bytes=64 * 1024,
    max_per_address=1000,
    connections_per_s=1e6,
    address_budget=1e7,
    address_share=1.0,
)
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
FAULT_RATE = 0.1
PER_EXAMPLE = 10
"""Connections of one example, on average at least."""


class FaultyTracer(Tracer):
    """Fails now and then, as anything may that the server calls while it holds its lock."""

    def __init__(self) -> None:
        self.rng, self.rate, self.num_failed = random.Random(7), 0.0, 0

    def admitted(self, key: str, world: str, generation: int) -> None:
        self._fail()

    def left(self, key: str) -> None:
        self._fail()

    def _fail(self) -> None:
        if self.rng.random() < self.rate:
            self.num_failed += 1
            raise ArithmeticError("out of ink")


@dataclass
class Seen:
    """What clients know from earlier connections."""

    tickets: list[str] = field(default_factory=lambda: ["no ticket"])
    branches: list[str] = field(default_factory=lambda: ["none"])
    files: list[bytes] = field(default_factory=lambda: [b"no file"])
    num_connections: int = 0
    num_resumed: int = 0


def picture() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 70, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


PICTURES = {"good": picture(), "bad": b"\x89PNG no", "large": bytes(70_000)}
pictures = st.sampled_from(["good", "bad", "large"]).map(lambda name: PICTURES[name])
last_frames = st.none() | st.sampled_from([0, 1, 5, 10**9, 2**53 - 1])
manners: st.SearchStrategy[Manner] = st.sampled_from(["close", "reset", "half"])
frames = st.integers(0, 8)


class Connections(RuleBasedStateMachine):
    """Connections in every state, and everything that may happen next."""

    peers = Bundle("peers")

    def __init__(self, server: RunningServer, tracer: FaultyTracer, seen: Seen) -> None:
        super().__init__()
        self.server, self.tracer, self.seen = server, tracer, seen
        self.all: list[Peer] = []
        tracer.rate = FAULT_RATE

    def connected(self) -> Peer:
        self.seen.num_connections += 1
        self.all.append(peer := Peer(self.server.port))
        return peer

    def opened(self) -> Peer:
        peer = self.connected()
        peer.shake_hands()
        return peer

    # ---- before hello

    @rule(target=peers)
    def connect(self) -> Peer:
        return self.connected()

    @rule(
        data=st.sampled_from(
            [b"", b"\x16\x03\x01", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n" * 99]
        )
    )
    def speak_something_else(self, data: bytes) -> None:
        self.connected().write(data)

    @rule(target=peers, number=st.integers(1, 3))
    def open(self, number: int) -> object:
        return multiple(*(self.opened() for _ in range(number)))

    @rule(peer=peers, cut=st.integers(1, len(HANDSHAKE)))
    def shake_hands_in_two_parts(self, peer: Peer, cut: int) -> None:
        peer.write(HANDSHAKE[:cut])
        peer.write(HANDSHAKE[cut:])

    @rule(cut=st.integers(1, len(HANDSHAKE) - 1), manner=manners)
    def end_amid_the_handshake(self, cut: int, manner: Manner) -> None:
        peer = self.connected()
        peer.write(HANDSHAKE[:cut])
        peer.end(manner)

    # ---- hello

    @rule(target=peers, world=st.sampled_from(["pixel", "pixel", "atlantis"]), index=st.sampled_from([0, 0, 99]))
    def join(self, world: str, index: int) -> Peer:
        peer = self.opened()
        peer.frame(BINARY, encode(hello(world, start={"index": index}, receipts=True)))
        return self.wait_for_answer(peer)

    @rule(target=peers, image=pictures)
    def join_with_a_picture(self, image: bytes) -> Peer:
        peer = self.opened()
        peer.frame(BINARY, encode(hello(start={"image": image})))
        return peer

    @rule(target=peers, which=st.randoms(use_true_random=False))
    def join_with_what_others_made(self, which: random.Random) -> Peer:
        peer = self.opened()
        branch, file = which.choice(self.seen.branches), which.choice(self.seen.files)
        peer.frame(BINARY, encode(hello(start={"branch": branch} if which.random() < 0.5 else {"state": file})))
        return self.wait_for_answer(peer)

    @rule(target=peers, back=st.integers(0, 5), last_frame=last_frames, number=st.integers(1, 2))
    def resume(self, back: int, last_frame: int | None, number: int) -> object:
        ticket = self.seen.tickets[-1 - min(back, len(self.seen.tickets) - 1)]
        peers = [self.opened() for _ in range(number)]
        for peer in peers:
            peer.frame(BINARY, encode(hello(resume={"ticket": ticket, "last_frame": last_frame})))
        return multiple(*map(self.wait_for_answer, peers))

    @rule(manner=manners, resumes=st.booleans(), last_frame=last_frames)
    def join_and_be_gone(self, manner: Manner, resumes: bool, last_frame: int | None) -> None:
        peer = self.opened()
        resume = {"ticket": self.seen.tickets[-1], "last_frame": last_frame} if resumes else None
        peer.frame(BINARY, encode(hello(resume=resume)))
        peer.end(manner)

    # ---- afterwards

    @rule(
        peer=peers,
        message=st.one_of(
            st.builds(Act, seq=st.integers(0, 50), buttons=st.sampled_from([(), ("up",), ("jump",)])),
            st.builds(Ack, frame=st.sampled_from([0, 3, 10**9])),
            st.builds(Start, seq=frames, start=st.builds(StartFrom, image=st.none() | pictures)),
            st.builds(Rewind, seq=frames, run_frame=frames),
            st.builds(Fork, seq=frames, run_frame=st.none() | frames),
            st.builds(Save, seq=frames),
            st.sampled_from([Pause(), Play(), Step(), GetLog(), SetPacing(pacing="lockstep"), SetSpeed(speed=None)]),
            st.builds(Bye, keep=st.booleans()),
            st.just(hello()),
        ),
    )
    def say(self, peer: Peer, message: Act) -> None:
        peer.frame(BINARY, encode(message))

    @rule(peer=peers, number=st.integers(1, 40))
    def act_a_lot(self, peer: Peer, number: int) -> None:
        for seq in range(number):
            peer.frame(BINARY, encode(Act(seq=seq + 100)))

    @rule(peer=peers, opcode=st.sampled_from([TEXT, CLOSE, PING, PONG, CONTINUATION, 5]), fin=st.booleans())
    def send_another_frame(self, peer: Peer, opcode: int, fin: bool) -> None:
        peer.frame(opcode, b"", fin=fin)

    @rule(
        peer=peers, data=st.sampled_from([b"\x82\xfe\x10\x00half", b"\xc2\x80", b"\x82\xff\xff\xff\xff\xff", b"\xc1"])
    )
    def send_what_is_no_frame(self, peer: Peer, data: bytes) -> None:
        peer.write(data)

    @rule(peer=peers)
    def read(self, peer: Peer) -> None:
        self.listen(peer)

    @rule(peer=consumes(peers), manner=manners)
    def end(self, peer: Peer, manner: Manner) -> None:
        peer.end(manner)

    # ---- always

    def listen(self, peer: Peer, timeout_s: float = 0.02) -> bool:
        """Receive what has come. Return whether there may be more to come."""
        is_open = peer.read(timeout_s)
        messages = peer.messages()
        for message in messages:
            self.note(message)
        return is_open and not messages

    def wait_for_answer(self, peer: Peer) -> Peer:
        for _ in range(10):
            if not self.listen(peer):
                break
        return peer

    def note(self, message: ServerMessage) -> None:
        if isinstance(message, Welcome) and message.resume_ticket is not None:
            self.seen.num_resumed += message.generation > 0
            self.seen.tickets = [*self.seen.tickets, message.resume_ticket][-20:]

    @invariant()
    def the_server_plays(self) -> None:
        counts = self.server.engine.counts()
        assert self.server.engine.is_healthy
        assert counts.playing <= CONFIG.max_sessions
        assert counts.waiting <= CONFIG.queue_limit

    def teardown(self) -> None:
        self.tracer.rate = 0.0
        for peer in self.all:
            self.listen(peer, 0.0)
        for number, peer in enumerate(self.all):
            peer.end("reset" if number % 2 else "close")


@dataclass
class Remains:
    """What there is of connections and sessions in this process."""

    descriptors: int
    tasks: int
    connections: int
    sessions: int
    send_queues: int

    @staticmethod
    def now(server: RunningServer) -> Remains:
        gc.collect()
        found = [type(thing) for thing in gc.get_objects()]
        assert server.server.acceptor is not None
        return Remains(
            descriptors=len(os.listdir("/dev/fd")),
            tasks=len(asyncio.all_tasks(server.server.acceptor._loop)),
            connections=found.count(Connection),
            sessions=found.count(Session),
            send_queues=found.count(SendQueue),
        )


async def with_branch_and_file(server: RunningServer) -> Seen:
    """Return what one session that played properly has left. Another one begins with a picture."""
    seen = Seen()
    async with raw_client(server.url, hello(start={"image": PICTURES["good"]})) as client:
        await client.play(1)
    async with raw_client(server.url, hello()) as client:
        await client.play(3)
        await client.send(Fork())
        await client.send(Save())
        while len(seen.files) < 2:
            match await client.receive():
                case Forked(ticket=ticket):
                    seen.branches.append(ticket)
                case Saved(file=file):
                    seen.files.append(file)
                case Frame(index=index):
                    await client.send(Ack(frame=index))
    return seen


def run(machine: Callable[[], Connections], scale: settings) -> None:
    run_state_machine_as_test(machine, settings=scale)  # type: ignore[arg-type]  # any callable that returns one


@pytest.fixture(scope="module")
def faulty() -> Iterator[tuple[RunningServer, FaultyTracer]]:
    with serve(CONFIG, {"pixel": tiny_world}, tracer=(tracer := FaultyTracer())) as running:
        yield running, tracer


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/fd and several loopback addresses")
@pytest.mark.parametrize("num_connections", [300, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_nothing_is_left_of_random_connections(
    faulty: tuple[RunningServer, FaultyTracer], num_connections: int, caplog: pytest.LogCaptureFixture
) -> None:
    server, tracer = faulty
    caplog.set_level(logging.CRITICAL)  # records of errors hold their tracebacks, and so what these tell of
    seen = await with_branch_and_file(server)
    await until(lambda: server.engine.counts() == (0, 0, 0, 0), "the first sessions have ended")
    await asyncio.sleep(0.1)
    before = Remains.now(server)
    scale = settings(
        max_examples=num_connections // PER_EXAMPLE,
        stateful_step_count=25,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # the server remembers earlier examples, so that none can be shortened
        suppress_health_check=list(HealthCheck),
    )
    while seen.num_connections < num_connections:
        await asyncio.to_thread(run, lambda: Connections(server, tracer, seen), scale)
    assert seen.num_resumed, "some sessions were resumed"
    assert tracer.num_failed, "parts of the server failed"

    budgets, limits = server.app.state.budgets, server.app.state.connection_limits
    state = server.server.server_state
    await until(lambda: server.engine.counts() == (0, 0, 0, 0), "no slot, no place, no session")
    await until(lambda: not state.connections and not state.tasks, "no connection in uvicorn")
    await until(lambda: budgets.num_open == 0 and not limits._open, "no connection is counted")
    assert not any(account.meters for account in budgets._accounts.values())
    assert server.engine.backlogs() == {}
    await until(lambda: not server.engine._registry._table.freed_slots, "all slots are released")
    await with_branch_and_file(server)  # as before: threads hold on to the last thing that they did
    with contextlib.suppress(AssertionError):
        await until(lambda: Remains.now(server) == before, "as before")
    assert Remains.now(server) == before
