"""Sessions, send queues and the scheduler together under a simulated clock: players who come, go, stall, pause and
catch up, and a clock that jumps."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.engine.scheduler import Plan, plan
from server.sessions.run import StartRequest
from server.sessions.session import Session
from server.wire.protocol import Ack, Act, Pause, Play, SetSpeed
from server.wire.send_queue import SendQueue
from tests.server.sessions.driving import WORLD

MAX_UNACKED, CHUNK = 3, 2
SLOTS = st.integers(0, 5)


@dataclass
class Player:
    """A session, the frames its client has taken, and in how many ticks in a row it was runnable but not stepped."""

    session: Session
    send_queue: SendQueue
    taken: list[int] = field(default_factory=list)
    missed: int = 0
    reads: bool = True
    acknowledges: bool = True


class Serving(RuleBasedStateMachine):
    """Up to six players of two worlds; a tick steps at most two of them, and takes time."""

    max_batch = 2
    tick_s = 0.03

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.players: dict[int, Player] = {}
        self.count = 0

    @initialize()
    def begin(self) -> None:
        for slot in range(4):
            self.come(slot, lockstep=False, unpaced=slot == 3)

    @rule(slot=SLOTS, lockstep=st.booleans(), unpaced=st.booleans())
    def come(self, slot: int, *, lockstep: bool, unpaced: bool) -> None:
        if slot in self.players:
            return
        self.count += 1
        world = WORLD.model_copy(update={"name": "ab"[slot % 2]})
        session = Session(
            f"k{self.count}",
            world,
            CHUNK,
            encoding="png",
            jpeg_quality=90,
            pacing="lockstep" if lockstep else "realtime",
            receipts=False,
            max_unacked=MAX_UNACKED,
            max_pending_acts=8,
        )
        session.life.admit(slot)
        session.request_start(StartRequest(), self.now)
        _, ticket, _ = session.begin_run(self.now)
        session.life.filled()
        player = self.players[slot] = Player(session, SendQueue(lambda: None))
        player.send_queue.put_frames(ticket.index, [b"start"], keep=True)
        if unpaced:
            session.receive(SetSpeed(speed=None), self.now)

    @precondition(lambda self: len(self.players) > 1)
    @rule(slot=SLOTS)
    def go(self, slot: int) -> None:
        self.players.pop(slot, None)

    @rule(slot=SLOTS)
    def act(self, slot: int) -> None:
        if (player := self.players.get(slot)) and player.session._input_buffer.num_pending < 8:
            player.session.receive(Act(seq=player.session.last_seq + 1, buttons=("up",)), self.now)

    @rule(slot=SLOTS, pause=st.booleans())
    def pause(self, slot: int, *, pause: bool) -> None:
        if player := self.players.get(slot):
            player.session.receive(Pause() if pause else Play(), self.now)

    @rule(slot=SLOTS, stalls=st.sampled_from(["reads", "acknowledges", "no"]))
    def stall(self, slot: int, stalls: str) -> None:
        """From now on a client does not read, or reads and never acknowledges; or it recovers."""
        if player := self.players.get(slot):
            player.reads, player.acknowledges = stalls != "reads", stalls == "no"

    def present(self, player: Player) -> None:
        while player.reads and player.send_queue.take() is not None:
            player.taken.append(player.send_queue.last_taken)
        if player.acknowledges and player.taken:
            player.session.receive(Ack(frame=player.taken[-1]), self.now)
            player.send_queue.acknowledge(player.taken[-1])

    @rule(jump=st.floats(0.0, 5.0))
    def time_passes(self, jump: float) -> None:
        self.now += jump

    @rule(num=st.integers(1, 12))
    def tick(self, num: int) -> None:
        for _ in range(num):
            self.step(self.plan())
            for player in self.players.values():
                self.present(player)

    def plan(self) -> Plan:
        return plan((player.session.view() for player in self.players.values()), self.now, self.max_batch)

    def step(self, planned: Plan) -> None:
        views = {slot: player.session.view() for slot, player in self.players.items()}
        runnable = {slot for slot, view in views.items() if view.runnable_at <= self.now}
        assert bool(planned.slots) == bool(runnable), "no runnable session waits while the model idles"
        assert len(set(planned.slots)) == len(planned.slots) <= self.max_batch
        assert set(planned.slots) <= runnable, "no step above the unacked limit, before its time, or while paused"
        if planned.slots:
            deadlines = [views[slot].deadline for slot in planned.slots]
            assert deadlines == sorted(deadlines), "most urgent first"
            assert deadlines[0] == min(views[slot].deadline for slot in runnable), "earliest deadline first"
        for slot in planned.slots:
            player = self.players[slot]
            before = player.session.run.frame
            ticket, _ = player.session.begin_chunk(self.now)
            assert ticket.run_frame == before + 1, "one step is one chunk"
            player.send_queue.put_frames(ticket.index, [b"x"] * CHUNK, keep=ticket.keep)
        self.now += self.tick_s if planned.slots else 0.01
        for slot, player in self.players.items():
            player.missed = player.missed + 1 if slot in runnable and slot not in planned.slots else 0
            assert player.missed <= 2 * len(self.players), "no session starves: others come first twice at most"

    @invariant()
    def at_most_one_replaceable_chunk_waits(self) -> None:
        for player in self.players.values():
            waiting = [frame for frame in player.send_queue._frames if not frame[2]]
            assert len(waiting) <= CHUNK
            assert player.session.num_unacked <= MAX_UNACKED

    @invariant()
    def frame_numbers_increase(self) -> None:
        for player in self.players.values():
            assert player.taken == sorted(set(player.taken))


TestServing = Serving.TestCase
TestServing.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
