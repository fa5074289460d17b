"""Players for `lightcone bench serve`, many in one process: `python -m benchmarks.players` prints their observations.

Owns the behaviour of each kind and what it records. Kinds: *steady* changes keys a few times per second; *bursty* sends
twenty acts at once and then waits a second; *idle* pauses its session; *stalled* stops acknowledging after two seconds;
*reconnecting* loses its connection every three seconds and resumes its session; *leaving* leaves at half time;
*hostile* sends acts as fast as it can and connects again whenever it is disconnected; *spinning* uses as much CPU
without sending anything, for comparison. Those of `benchmarks.attackers` attack in other ways. Measurement begins at
the same time (`--at`) for all players.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from lightcone_client import ConnectionLostError, LightconeClientError, RefusedError, Session, connect
from lightcone_client.addresses import stream_url
from lightcone_client.messages import PROTOCOL_VERSION, pack
from websockets.asyncio.client import connect as socket_to
from websockets.exceptions import ConnectionClosed

from benchmarks.attackers import ATTACKS, GONE, Target, address_for
from benchmarks.play import HOLD_S

BURST, SILENCE_S, SPIN_S = 20, 1.0, 0.02
STALL_AFTER_S, STAY_S = 2.0, 3.0
OTHER_ADDRESS = "127.0.0.2"
"""Address of hostile players on systems with several loopback addresses: the server may block an address for what one
of its clients does."""


@dataclass(slots=True)
class Seen:
    """One player's observations during the measurement.

    out_of_order: frames whose index did not increase. latencies_ms: from sending an act to the first frame that covers
    it. queued: messages about its place in the admission queue. connected, resumed: how often it connected and resumed
    its session. ended: codes of refusals and closed connections. suffered_s: the longest time that a hostile player's
    connection lasted. duty: the part of the time for which the process used a core.
    """

    kind: str
    frames: int = 0
    out_of_order: int = 0
    first_index: int | None = None
    last_index: int | None = None
    latencies_ms: list[float] = field(default_factory=list)
    queued: int = 0
    connected: int = 0
    resumed: int = 0
    ended: list[str] = field(default_factory=list)
    suffered_s: float | None = None
    duty: float = 0.0


@dataclass(slots=True)
class Player:
    """A player, who makes one connection after another to one server."""

    url: str
    world: str
    begin: float
    end: float
    seen: Seen
    unpaced: bool = False
    duty: float = 1.0
    ticket: str | None = None

    async def play(self) -> None:
        """Play until the end, handling all refusals and disconnections."""
        if (attack := ATTACKS.get(self.seen.kind)) is not None:
            target = Target(self.url, self.world, self.end, address_for(self.seen.kind))
            await attack(target)
            self.seen.connected = target.num_attempts
            return
        if (behaviour := BEHAVIOURS[self.seen.kind]) is None:
            await (self._flood() if self.seen.kind == "hostile" else self._spin())
            return
        while time.time() < self.end:
            options: dict[str, Any] = {"auto_ack": False, "on_queued": self._queued, "ticket": self.ticket}
            try:
                async with connect(self.url, world=self.world, **options) as session:
                    self.seen.connected += 1
                    self.ticket = session.welcome.resume_ticket
                    try:
                        await asyncio.wait_for(behaviour(self, session), max(self.end - time.time(), 0))
                    finally:
                        self.seen.resumed = max(self.seen.resumed, session.welcome.generation)
            except TimeoutError:
                return
            except RefusedError as error:
                self.seen.ended.append(error.code)
                if error.code == "idle":  # connect again
                    continue
            except ConnectionLostError as error:
                self.seen.ended.append(str(error.close_code))
            except LightconeClientError as error:
                self.seen.ended.append(type(error).__name__)
            return

    async def _spin(self) -> None:
        """Do the work of `_flood` without sending, to measure what an attack costs the client machine alone: for the
        part `duty` of the time."""
        seq = 0
        while time.time() < self.end:
            busy_until = time.perf_counter() + self.duty * SPIN_S
            while time.perf_counter() < busy_until:
                pack("act", seq=(seq := seq + 1))
            await asyncio.sleep((1 - self.duty) * SPIN_S)

    async def _flood(self) -> None:
        """Send acts as fast as possible from a separate address; connect again whenever the server allows it."""
        start: dict[str, object] = {}
        hello = pack("hello", version=PROTOCOL_VERSION, world=self.world, encodings=["jpeg"], start=start)
        options: dict[str, Any] = {"local_addr": (OTHER_ADDRESS, 0)} if sys.platform == "linux" else {}
        while time.time() < self.end:
            started, seq = time.time(), 0
            try:
                async with socket_to(stream_url(self.url), compression=None, proxy=None, **options) as socket:
                    self.seen.connected += 1
                    await socket.send(hello)
                    while time.time() < self.end:
                        await socket.send(pack("act", seq=(seq := seq + 1)))
                        await asyncio.sleep(0)  # so that messages of the server are received
            except ConnectionClosed as closed:
                self.seen.ended.append(str(closed.rcvd.code if closed.rcvd else None))
                self.seen.suffered_s = max(self.seen.suffered_s or 0.0, time.time() - started)
            except GONE as refused:
                self.seen.ended.append(type(refused).__name__)
            await asyncio.sleep(0.05)

    def _queued(self, _: object) -> None:
        self.seen.queued += 1

    async def watch(self, session: Session, ack_until: float | None = None) -> None:
        """Receive and acknowledge frames until the stream ends; record those within the measurement."""
        sent: dict[int, float] = {}
        newest = -1
        if self.unpaced:
            await session.set_speed(None)
        keys = asyncio.create_task(self._keys(session, sent))
        try:
            async for frame in session:
                now = time.time()
                self.seen.out_of_order += frame.index <= newest
                newest = frame.index
                if frame.end_of_chunk and (ack_until is None or now < ack_until):
                    await session.ack(frame)
                covered = [seq for seq in sent if frame.applied_seq is not None and seq <= frame.applied_seq]
                latencies = [(now - sent.pop(seq)) * 1e3 for seq in covered]
                if self.begin <= now <= self.end and frame.kind == "generated":
                    self.seen.frames += 1
                    self.seen.latencies_ms += latencies
                    self.seen.first_index = frame.index if self.seen.first_index is None else self.seen.first_index
                    self.seen.last_index = frame.index
        finally:
            keys.cancel()
            with contextlib.suppress(asyncio.CancelledError, LightconeClientError):
                await keys

    async def _keys(self, session: Session, sent: dict[int, float]) -> None:
        """Press and release the world's buttons in turn."""
        states = [held for button in session.world.buttons for held in ((button.name,), ())] or [()]
        bursts = self.seen.kind == "bursty"
        for count in range(sys.maxsize):
            for place in range(BURST if bursts else 1):
                sent_at = time.time()
                sent[await session.act(states[(count + place) % len(states)])] = sent_at
            await asyncio.sleep(SILENCE_S if bursts else HOLD_S[count % len(HOLD_S)])


async def steady(player: Player, session: Session) -> None:
    """Play until the end."""
    await player.watch(session)


async def idle(player: Player, session: Session) -> None:
    """Pause after the first frame."""
    await session.ack(await session.frame())
    await session.pause()
    await player.watch(session)


async def stalled(player: Player, session: Session) -> None:
    """Stop acknowledging after `STALL_AFTER_S`."""
    await player.watch(session, ack_until=time.time() + STALL_AFTER_S)


async def reconnecting(player: Player, session: Session) -> None:
    """Cut the connection every `STAY_S`; the client resumes the session."""

    async def lose() -> None:
        while True:
            await asyncio.sleep(STAY_S)
            session.cut()

    losing = asyncio.create_task(lose())
    try:
        await player.watch(session)
    finally:
        losing.cancel()


async def leaving(player: Player, session: Session) -> None:
    """Leave in the middle of the measurement."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(player.watch(session), max((player.begin + player.end) / 2 - time.time(), 0))


BEHAVIOURS: dict[str, Callable[[Player, Session], Awaitable[None]] | None] = {
    "steady": steady,
    "bursty": steady,
    "idle": idle,
    "stalled": stalled,
    "reconnecting": reconnecting,
    "leaving": leaving,
    "hostile": None,  # these use no session of the client library
    "spinning": None,
    **dict.fromkeys(ATTACKS),
}


async def play_all(players: list[Player], begin: float) -> list[Seen]:
    """Run all players concurrently. Those that attack or spin, one in a process, begin with the measurement."""

    async def play(player: Player) -> None:
        if player.seen.kind in ATTACKS or player.seen.kind == "spinning":
            await asyncio.sleep(begin - time.time())
        used, began = time.process_time(), time.perf_counter()
        await player.play()
        player.seen.duty = (time.process_time() - used) / (time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for player in players:
            group.create_task(play(player))
    return [player.seen for player in players]


def main() -> None:
    """Run the players given on the command line and print what they saw as JSON."""
    parser = argparse.ArgumentParser(description="players for the load benchmark of a Lightcone server")
    parser.add_argument("--url", required=True)
    parser.add_argument("--world", required=True)
    parser.add_argument("--at", type=float, required=True, help="start of the measurement, in seconds since the epoch")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--unpaced", action="store_true")
    parser.add_argument("--duty", type=float, default=1.0, help="part of the time for which spinning players spin")
    parser.add_argument("kinds", nargs="+", choices=sorted(BEHAVIOURS))
    args = parser.parse_args()
    end = args.at + args.seconds
    players = [Player(args.url, args.world, args.at, end, Seen(kind), args.unpaced, args.duty) for kind in args.kinds]
    seen = asyncio.run(play_all(players, args.at))
    print(json.dumps([asdict(entry) for entry in seen]))


if __name__ == "__main__":
    main()
