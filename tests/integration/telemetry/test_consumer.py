"""The consumer and its clients, as processes and over the real socket."""

import asyncio
import errno
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bentos.telemetry.consumer import Consumer, Pace
from bentos.telemetry.event_log import read_events
from bentos.telemetry.events_client import EventsClient
from bentos.telemetry.exposures import ExposureLog, read_exposures
from bentos.telemetry.rendezvous import lock_path, output_path, run_folder, socket_to_connect
from contracts.errors import Overloaded, Unreachable
from contracts.events import Event
from contracts.exposures import Exposure, Versions
from features.online.memory import MemoryStore
from features.online.redis import RedisStore
from features.online.sqlite import SqliteStore


def event(event_id: str, user: str = "u1", item: str = "i1", at_us: int | None = None) -> Event:
    now = time.time_ns() // 1000 if at_us is None else at_us
    return Event(event_id, user, item, "click", now, now)


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


def pid_of(home: Path) -> int:
    return int(lock_path(home).read_text())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "h"
    try:
        pid = pid_of(tmp_path / "h")
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        pass


def test_a_client_starts_the_consumer_and_an_answered_event_is_on_the_disk(home: Path) -> None:
    async def main() -> None:
        client = EventsClient(home)
        assert await client.send([event("a"), event("b"), event("a")]) == (2, 1)
        pid = pid_of(home)
        os.kill(pid, signal.SIGKILL)  # whatever was in its memory is gone
        assert read_events(home)["event_id"].to_pylist() == ["a", "b"]
        mode = socket_to_connect(home).stat().st_mode  # type: ignore[union-attr]
        assert stat.S_ISSOCK(mode)
        assert mode & 0o777 == 0o600
        assert await client.send([event("b"), event("c")]) == (1, 1)
        assert pid_of(home) != pid
        assert client.healthy is None
        await client.close()

    asyncio.run(main())


def test_the_next_read_of_the_user_knows_the_event(home: Path) -> None:
    async def main() -> None:
        client = EventsClient(home)
        await client.send([event("a", item="i7", at_us=1_000), event("b", item="i8", at_us=2_000)])
        store = SqliteStore(home)
        assert [i.item_id for i in (await store.read_user("u1")).last] == ["i8", "i7"]
        store.close()
        await client.close()

    asyncio.run(main())


def test_killed_under_load_every_answered_event_is_there_exactly_once(home: Path) -> None:
    async def main() -> None:
        clients = [EventsClient(home, deadline_s=20) for _ in range(2)]
        answered: list[str] = []
        stop = False

        async def load(worker: int) -> None:
            number = 0
            while not stop:
                batch = [event(f"{worker}-{number}-{i}", user=f"u{worker}") for i in range(5)]
                number += 1
                await clients[worker % 2].send(batch)
                answered.extend(e.event_id for e in batch)

        tasks = [asyncio.create_task(load(w)) for w in range(8)]
        killed = set()
        for _ in range(3):
            before = len(answered)
            await until(lambda before=before: len(answered) > before + 200)
            killed.add(pid := pid_of(home))
            os.kill(pid, signal.SIGKILL)
        before = len(answered)
        await until(lambda: len(answered) > before + 200)
        stop = True
        await asyncio.gather(*tasks)
        assert len(killed) == 3
        for client in clients:
            await client.close()
        stored = Counter(read_events(home)["event_id"].to_pylist())
        assert len(answered) == len(set(answered))
        assert set(answered) <= stored.keys()
        assert set(stored.values()) == {1}

    asyncio.run(main())


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_a_write_into_a_connection_that_has_just_gone_is_sent_again(
    home: Path, loop: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """The loop of the service has words of its own for it."""

    async def main() -> None:
        client = EventsClient(home, deadline_s=20)
        assert await client.send([event("a")]) == (1, 0)
        assert client._connection
        client._connection._listening.cancel()  # who would have noticed
        await asyncio.sleep(0)
        client._connection._writer.transport.abort()
        client._connection.alive = True
        await asyncio.sleep(0.01)
        assert await client.send([event("b")]) == (1, 0)
        await client.close()

    loop(main())


def test_a_second_consumer_says_so_and_ends_well(home: Path) -> None:
    async def main() -> None:
        client = EventsClient(home)
        await client.send([event("a")])
        second = subprocess.run(
            [sys.executable, "-m", "bentos.telemetry.consumer", "--home", str(home)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 0
        assert "another consumer" in second.stderr
        assert await client.send([event("b")]) == (1, 0)
        await client.close()

    asyncio.run(main())


def test_many_clients_that_start_at_once_share_one_consumer(home: Path) -> None:
    async def main() -> None:
        clients = [EventsClient(home, deadline_s=20) for _ in range(4)]
        counts = await asyncio.gather(*(c.send([event("same"), event(f"own-{i}")]) for i, c in enumerate(clients)))
        assert sum(a for a, _ in counts) == 5
        assert len(read_events(home)) == 5
        for client in clients:
            await client.close()

    asyncio.run(main())


def test_the_consumer_ends_soon_after_the_last_good_bye(home: Path) -> None:
    async def main() -> None:
        first, second = EventsClient(home), EventsClient(home)
        await first.send([event("a")])
        await second.send([event("b")])
        pid = pid_of(home)
        await first.close()
        assert alive(pid)
        began = time.monotonic()
        await second.close()
        await until(lambda: not alive(pid))
        assert time.monotonic() - began < Pace().alone_s
        with pytest.raises(Unreachable, match="closed"):
            await first.send([event("c")])

    asyncio.run(main())


def test_sigterm_answers_what_was_taken_and_the_client_goes_on_with_the_next(home: Path) -> None:
    async def main() -> None:
        client = EventsClient(home, deadline_s=20)
        await client.send([event("a")])
        sending = [asyncio.create_task(client.send([event(f"b{i}")])) for i in range(50)]
        await asyncio.sleep(0)
        os.kill(pid_of(home), signal.SIGTERM)
        await asyncio.gather(*sending)
        assert len(read_events(home)) == 51
        await client.close()

    asyncio.run(main())


def test_a_home_deleted_under_the_consumer_ends_it(home: Path) -> None:
    async def main() -> None:
        client = EventsClient(home, deadline_s=20)
        await client.send([event("a")])
        pid = pid_of(home)
        for path in sorted(home.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        await until(lambda: not alive(pid))
        assert await client.send([event("a")]) == (1, 0)
        assert len(read_events(home)) == 1
        await client.close()

    asyncio.run(main())


def test_a_deep_home_works_too(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / "h"

    async def main() -> None:
        client = EventsClient(deep)
        assert await client.send([event("a")]) == (1, 0)
        pid = pid_of(deep)
        await client.close()
        await until(lambda: not alive(pid))

    asyncio.run(main())


def test_a_store_that_cannot_be_opened_is_unreachable_with_its_reason(home: Path) -> None:
    run_folder(home)
    (home / "events.db").write_bytes(b"no database" * 500)

    async def main() -> None:
        client = EventsClient(home, deadline_s=0.5)
        deadline = time.monotonic() + 20
        while "not a database" not in (client.healthy or ""):
            assert time.monotonic() < deadline
            with pytest.raises(Unreachable):
                await client.send([event("a")])
        assert "events.db" in output_path(home).read_text()
        await client.start()  # still away, and no error
        (home / "events.db").unlink()
        (home / "events.db-wal").unlink(missing_ok=True)
        while client.healthy:
            assert time.monotonic() < deadline + 20
            await client.start()
        assert await client.send([event("a")]) == (1, 0)
        await client.close()

    asyncio.run(main())


# --- in this process: what needs a pace or a store of its own ---------------------------------------------------------


def with_consumer(home: Path, consumer: Consumer, body: Callable[[EventsClient], Awaitable[None]]) -> None:
    async def main() -> None:
        run_folder(home)
        running = asyncio.create_task(consumer.run())
        await until(lambda: socket_to_connect(home).exists())  # type: ignore[union-attr]
        client = EventsClient(home)
        try:
            await body(client)
        finally:
            await client.close()
            await asyncio.wait_for(running, 15)

    asyncio.run(main())


FAST = Pace(beat_s=0.05, farewell_s=0.05, alone_s=0.3)


def test_past_its_queue_the_consumer_says_overloaded_and_loses_nothing(home: Path) -> None:
    async def body(client: EventsClient) -> None:
        sent = [client.send([event(f"{n}-{i}") for i in range(10)]) for n in range(10)]
        results = await asyncio.gather(*sent, return_exceptions=True)
        stored = [r for r in results if not isinstance(r, BaseException)]
        refused = [r for r in results if isinstance(r, Overloaded)]
        assert len(stored) == 3
        assert len(refused) == 7
        assert refused[0].retry_after_s >= 1
        assert len(read_events(home)) == 30
        assert await client.send([event("later")]) == (1, 0)

    with_consumer(home, Consumer(home, pace=replace(FAST, max_waiting=30, gather_s=0.3)), body)


def test_batches_that_arrive_together_are_one_transaction(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentos.telemetry.event_store import EventStore

    commits: list[int] = []
    append = EventStore.append

    def counted(self: EventStore, batches: list[list[Event]]) -> list[tuple[int, int]]:
        commits.append(len(batches))
        return append(self, batches)

    monkeypatch.setattr(EventStore, "append", counted)

    async def body(client: EventsClient) -> None:
        await asyncio.gather(*(client.send([event(str(i))]) for i in range(20)))

    with_consumer(home, Consumer(home, pace=replace(FAST, gather_s=0.2)), body)
    assert sum(commits) == 20
    assert len(commits) <= 2


def test_a_client_that_vanishes_leaves_the_consumer_its_patience(home: Path) -> None:
    async def body(client: EventsClient) -> None:
        await client.send([event("a")])
        assert client._connection
        client._connection._writer.transport.abort()
        client._connection = None
        await until(lambda: not socket_to_connect(home).exists())  # type: ignore[union-attr]

    with_consumer(home, Consumer(home, pace=FAST), body)


def test_logs_of_processes_that_have_ended_are_rolled_on_the_side(home: Path) -> None:
    log = ExposureLog(home)
    versions = Versions("b", "r", "k", "f", "rules")
    now_us = time.time_ns() // 1000
    log.append(
        Exposure("r", now_us, 1, "u", "u", "champion", "champion", 1.0, False, None, "ok", "full", ["i"], versions)
    )
    log.close()

    async def body(client: EventsClient) -> None:
        await client.start()
        await until(lambda: list((home / "log/exposures").glob("date=*/*.parquet")))
        assert len(read_exposures(home)) == 1
        store = SqliteStore(home)
        await until(lambda: store.read_item_counts(now_us + 1).item_ids == ["i"])  # and what was shown is counted
        store.close()

    with_consumer(home, Consumer(home, pace=replace(FAST, first_roll_s=0.0, roll_s=0.05)), body)


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x03abc", b"\xff" * 64, b"\x00"])
def test_junk_on_the_socket_disturbs_no_one(home: Path, junk: bytes) -> None:
    async def body(client: EventsClient) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(socket_to_connect(home)))
            other.sendall(junk)
            assert await client.send([event("a")]) == (1, 0)

    with_consumer(home, Consumer(home, pace=FAST), body)


def test_another_online_store_is_told_and_told_again_after_it_was_away(home: Path) -> None:
    other = MemoryStore()

    async def body(client: EventsClient) -> None:
        await client.send([event("a", item="i1", at_us=1_000)])
        assert [i.item_id for i in (await other.read_user("u1")).last] == ["i1"]
        other.away = True
        assert await client.send([event("b", item="i2", at_us=2_000)]) == (1, 0)  # durable all the same
        other.away = False
        deadline = time.monotonic() + 10
        while [i.item_id for i in (await other.read_user("u1")).last] != ["i2", "i1"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)

    with_consumer(home, Consumer(home, other, pace=FAST), body)


class FullDisk:
    """A standard error whose file lies on a disk without space."""

    def write(self, words: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flush = write


@pytest.mark.parametrize("where", ["append", "after"])
def test_a_full_disk_is_an_answer_and_events_work_again_when_there_is_room(
    home: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def body(client: EventsClient) -> None:
        assert await client.send([event("a")]) == (1, 0)
        with monkeypatch.context() as patch:
            patch.setattr(f"bentos.telemetry.event_store.EventStore.{where}", full)
            patch.setattr(sys, "stderr", FullDisk())
            for name in ("b", "c"):  # the second finds a consumer that has survived the first
                if where == "append":
                    with pytest.raises(Unreachable, match="disk is full"):
                        await client.send([event(name)])
                else:  # telling another store comes after the commit
                    assert await client.send([event(name)]) == (1, 0)
        again = await client.send([event("b"), event("c")])
        assert again == ((2, 0) if where == "append" else (0, 2))
        assert client.healthy is None

    with_consumer(home, Consumer(home, MemoryStore(), pace=replace(FAST, beat_s=0.01)), body)


def test_a_commit_that_ends_in_a_way_nobody_foresaw_is_answered_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("surprise")

    async def body(client: EventsClient) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Consumer, "_commit", broken)
            with pytest.raises(Unreachable, match="surprise"):
                await client.send([event("a")])
        assert await client.send([event("a")]) == (1, 0)

    with_consumer(home, Consumer(home, pace=FAST), body)


@pytest.mark.redis
def test_redis_knows_an_answered_event(home: Path, redis_url: str) -> None:
    async def main() -> None:
        client = EventsClient(home, online_store=redis_url)
        await client.send([event("a", item="i1", at_us=1_000), event("b", item="i2", at_us=2_000)])
        store = RedisStore(redis_url)
        assert [i.item_id for i in (await store.read_user("u1")).last] == ["i2", "i1"]
        store.close()
        await client.close()

    asyncio.run(main())
