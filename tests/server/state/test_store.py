"""Sessions on disk: the next server continues what one server wrote, however that one ended."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from lightcone_client import Frame, Session, connect
from lightcone_client.session import Pacing

from server.errors import ConfigError, UnknownTicketError
from server.state.store import Store, StoredSession, Written
from tests.server.command_line import serving
from tests.server.waiting import until
from world.testing import tiny_world

NUM_PLAYERS = 4
FPS = 30.0
LOCKSTEP_FPS = 2 * FPS


def stored(generation: int = 0, data: bytes = b"x", *, key: str = "k", secret: str = "s") -> StoredSession:  # noqa: S107
    return StoredSession(key, secret, generation, "tiny", lambda: data)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "folder" / "sessions.db", ttl_s=100.0)
    yield made
    made.close()


def test_the_latest_state_is_claimed_with_the_right_secret_only(store: Store) -> None:
    assert store.put(stored(data=b"first")).result() is Written.DONE
    assert store.put(stored(data=b"second")).result() is Written.DONE
    claimed = store.claim("k", "s").result()
    assert (claimed.data(), claimed.generation, claimed.world) == (b"second", 1, "tiny")
    for key, secret in (("k", "S"), ("other", "s"), ("k", "")):
        with pytest.raises(UnknownTicketError):
            store.claim(key, secret).result()


def test_only_the_owner_may_read_the_file_and_it_holds_no_secret(store: Store, tmp_path: Path) -> None:
    store.put(stored(secret="a secret that is long")).result()  # noqa: S106
    for file in (tmp_path / "folder").iterdir():
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077
        assert b"a secret that is long" not in file.read_bytes()


def test_a_server_learns_that_another_has_claimed_its_session(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "folder" / "sessions.db", ttl_s=100.0)
    assert store.put(stored(0)).result() is Written.DONE
    assert other.claim("k", "s").result().generation == 1
    assert store.put(stored(0, b"late")).result() is Written.CLAIMED
    assert other.put(stored(1, b"mine")).result() is Written.DONE
    assert store.claim("k", "s").result().data() == b"mine"
    other.close()


def test_a_session_is_deleted_when_it_expires_and_when_it_is_dropped(tmp_path: Path) -> None:
    brief = Store(tmp_path / "sessions.db", ttl_s=0.05)
    brief.put(stored()).result()
    (expires_at,) = brief._work.submit(
        lambda: brief._file.execute("select expires_at from sessions").fetchone()
    ).result()
    while time.time() <= expires_at:
        time.sleep(0.01)
    with pytest.raises(UnknownTicketError):
        brief.claim("k", "s").result()
    brief._dropped_at = -1e9
    brief.put(stored(key="another")).result()
    brief._work.submit(lambda: None).result()
    with sqlite3.connect(tmp_path / "sessions.db") as file:
        assert [row[0] for row in file.execute("select key from sessions")] == ["another"]
    brief.drop("another")
    brief.close()
    with sqlite3.connect(tmp_path / "sessions.db") as file:
        assert file.execute("select count(*) from sessions").fetchone() == (0,)


def test_of_several_waiting_writes_only_the_newest_is_done(store: Store) -> None:
    written: list[int] = []

    def data(number: int) -> Callable[[], bytes]:
        return lambda: written.append(number) or b"%d" % number  # type: ignore[func-returns-value]

    may_write = threading.Event()
    store._work.submit(may_write.wait, 10)
    futures = [store.put(StoredSession("k", "s", 0, "tiny", data(number))) for number in range(5)]
    may_write.set()
    assert {future.result() for future in futures} == {Written.DONE}
    assert written == [4]


@pytest.mark.parametrize("wrong", ["no database", "another format", "a folder"])
def test_a_foreign_file_is_refused_at_the_start(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "file"
    if wrong == "no database":
        path.write_bytes(b"nonsense" * 200)
    elif wrong == "another format":
        with sqlite3.connect(path) as file:
            file.execute("pragma user_version = 99")
    else:
        path.mkdir()
    with pytest.raises(ConfigError, match=str(path)):
        Store(path, ttl_s=1.0)


def test_a_failing_disk_is_logged_once_and_ends_no_session(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store._work.submit(store._execute, "drop table sessions").result()
    for _ in range(3):
        assert store.put(stored()).result() is Written.FAILED
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert store.num_failures == 3


# ---- between processes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worlds") / "tiny"
    tiny_world().save(folder)
    return folder


class Player:
    """Plays until `enough` is set, and records which frames it sees, and when."""

    def __init__(self, number: int) -> None:
        self.lockstep = number % 2 == 0
        self.frames: list[tuple[float, Frame]] = []
        self.generation = 0
        self.enough = asyncio.Event()

    async def play(self, url: str, *others: str) -> None:
        pacing: Pacing = "lockstep" if self.lockstep else "realtime"
        async with connect(url, world="tiny", pacing=pacing, encoding="png", also=others) as session:
            await self._see(session)
            while not self.enough.is_set():
                if self.lockstep:
                    await asyncio.sleep(1 / LOCKSTEP_FPS)  # the player's own pace: no more frames than that per second
                    await session.act(["up"])
                await self._see(session)
            self.generation = session.welcome.generation

    async def _see(self, session: Session) -> None:
        self.frames.append((time.monotonic(), await session.frame()))

    @property
    def run_frame(self) -> int:
        """Return how far the run is, as far as the player has seen it."""
        return self.frames[-1][1].run_frame if self.frames else 0

    @property
    def loss_limit(self) -> float:
        """Return the most frames that may be lost when a server is killed: two seconds of play."""
        return 2 * (LOCKSTEP_FPS if self.lockstep else FPS)

    @property
    def gaps(self) -> list[float]:
        return [after - before for (before, _), (after, _) in pairwise(self.frames)]


async def until_each(
    playing: asyncio.Future[list[None]], have: Callable[[], Iterable[bool]], what: str, *, within_s: float
) -> None:
    """Wait until all that `have` returns is true. Raise the exception of a player that stops before."""
    await until(lambda: playing.done() or all(have()), what, within_s=within_s)
    if playing.done():
        playing.result()


async def play_on(playing: asyncio.Future[list[None]], players: list[Player], url: str) -> None:
    """Check that within two seconds every player plays at the server of `url`; then end their play."""
    before = [len(player.frames) for player in players]

    def have() -> Iterable[bool]:
        return [len(player.frames) - seen > 15 for player, seen in zip(players, before, strict=True)]

    await until_each(playing, have, "every player plays again", within_s=2.0)
    assert httpx.get(f"{url}/readyz").json()["playing"] == NUM_PLAYERS
    for player in players:
        player.enough.set()
    await playing


def flags(tiny: Path, store: Path) -> list[str]:
    return ["serve", "--world", str(tiny), "--store", str(store), "--threads", "1", "--admit-all"]


async def test_a_server_that_is_killed_and_started_again_continues_every_session(tiny: Path, tmp_path: Path) -> None:
    """At most two seconds of play are lost, and every player sees a new run begin."""
    players = [Player(number) for number in range(NUM_PLAYERS)]
    words = flags(tiny, tmp_path / "sessions.db")
    with serving(*words) as (process, url):
        playing = asyncio.gather(*(player.play(url) for player in players))
        enough = "every player has played for longer than may be lost"
        await until_each(playing, lambda: [p.run_frame > 1.2 * p.loss_limit for p in players], enough, within_s=30.0)
        process.send_signal(signal.SIGKILL)
        process.wait()
    seen = [len(player.frames) for player in players]
    port = url.rpartition(":")[2]
    with serving(*words, port=port) as (process, url):
        await play_on(playing, players, url)
    for player, before in zip(players, seen, strict=True):
        assert player.generation == 1
        frames = [frame for _, frame in player.frames]
        assert all(a.index < b.index for a, b in pairwise(frames))
        picture = next(frame for frame in frames if frame.run == 1)
        assert picture.kind == "start"
        newest = max(frame.run_frame for frame in frames if frame.run == 0)
        assert newest - picture.run_frame <= player.loss_limit
        assert len(frames) - before > 15, "play continues"


async def test_a_server_that_stops_hands_its_sessions_to_another(tiny: Path, tmp_path: Path) -> None:
    """No frame is lost, and nobody waits longer than two seconds."""
    players = [Player(number) for number in range(NUM_PLAYERS)]
    words = flags(tiny, tmp_path / "sessions.db")
    with serving(*words) as (first, url), serving(*words) as (_, other):
        playing = asyncio.gather(*(player.play(url, other) for player in players))
        enough = "every player has played past the second save"
        await until_each(playing, lambda: [p.run_frame > 1.5 * FPS for p in players], enough, within_s=30.0)
        first.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait, 10) in (0, -signal.SIGTERM)
        await play_on(playing, players, other)
    for player in players:
        assert player.generation == 1
        assert max(player.gaps) <= 2.0
        frames = [frame for _, frame in player.frames]
        assert {frame.run for frame in frames} == {0}
        if player.lockstep:
            assert [frame.index for frame in frames] == list(range(len(frames)))
        else:
            assert all(a.index < b.index for a, b in pairwise(frames))


def test_an_unusable_store_is_reported_before_anything_is_served(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"nonsense" * 200)
    with pytest.raises(AssertionError, match="another file"), serving(*flags(tiny, tmp_path / "file")):
        pass


def test_writes_that_fail_while_the_store_is_closed_have_a_result(tmp_path: Path) -> None:
    """Whoever waits for them, such as a connection that ends once its session is written, waits for no longer."""
    closing = Store(tmp_path / "sessions.db", ttl_s=100.0)
    closing._work.submit(closing._execute, "drop table sessions").result()
    may_write = threading.Event()
    closing._work.submit(may_write.wait, 10)
    futures = [closing.put(stored(key=f"k{number}")) for number in range(3)]
    threading.Timer(0.05, may_write.set).start()
    closing.close()
    assert [future.result(1) for future in futures] == [Written.FAILED] * 3
