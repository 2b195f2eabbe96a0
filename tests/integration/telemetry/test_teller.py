"""An online store apart from the log is kept in step, and holds up nobody."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bentos.telemetry.consumer import Consumer, Pace
from bentos.telemetry.event_store import EventStore
from bentos.telemetry.event_stream import RedisEventLog
from bentos.telemetry.events_client import EventsClient
from bentos.telemetry.rendezvous import lock_path, run_folder, socket_to_connect
from bentos.telemetry.teller import Teller
from contracts.errors import Overloaded, Unreachable
from contracts.events import Event
from features.online.memory import MemoryStore
from tests.redis_server import RedisServer, started
from tests.serving_processes import alive

FAST = Pace(beat_s=0.05, farewell_s=0.05, alone_s=0.3, last_tell_s=0.1)


def event(event_id: str, **more: object) -> Event:
    now = time.time_ns() // 1000
    return Event(event_id, "u1", "i1", "click", now, now, **more)  # type: ignore[arg-type]


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


def counted(store: MemoryStore) -> int:
    return int(store.read_item_counts(time.time_ns() // 1000 + 1_000_000).n.sum())


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


class Stuck(MemoryStore):
    """Takes nothing in until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.asked = 0

    def take_in(self, log: str, events: Sequence[Event], *, after: str, to: str) -> bool:
        self.asked += 1
        assert self.go.wait(30)
        return super().take_in(log, events, after=after, to=to)


def test_a_store_that_hangs_holds_up_no_answer_and_is_told_when_it_is_back(tmp_path: Path) -> None:
    store = Stuck()

    async def body(client: EventsClient) -> None:
        for n in range(5):
            assert await client.send([event(str(n))]) == (1, 0)
        assert store.asked == 1
        assert counted(store) == 0
        store.go.set()
        await until(lambda: counted(store) == 5)

    with_consumer(tmp_path, Consumer(tmp_path, store, pace=replace(FAST, tell_wait_s=0.01)), body)


def test_no_answer_waits_for_a_round_that_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentos.telemetry.teller._LONG_S", 0.0)
    store = Stuck()

    async def body(client: EventsClient) -> None:
        first = asyncio.create_task(client.send([event("a")]))
        await until(lambda: store.asked)
        assert await client.send([event("b")]) == (1, 0)  # while the first one's telling hangs
        assert not first.done()
        store.go.set()
        assert await first == (1, 0)
        await until(lambda: counted(store) == 2)

    with_consumer(tmp_path, Consumer(tmp_path, store, pace=replace(FAST, tell_wait_s=60.0)), body)


def test_what_was_not_told_is_told_by_the_next_consumer_once(tmp_path: Path) -> None:
    store = MemoryStore()

    async def away(client: EventsClient) -> None:
        await client.send([event("a")])
        assert counted(store) == 1
        store.away = True
        await client.send([event("b"), event("c")])

    async def back(client: EventsClient) -> None:
        await until(lambda: counted(store) == 3)
        await client.send([event("a"), event("d")])
        assert counted(store) == 4

    with_consumer(tmp_path, Consumer(tmp_path, store, pace=FAST), away)
    store.away = False
    with_consumer(tmp_path, Consumer(tmp_path, store, pace=FAST), back)


def test_two_tellers_of_one_log_count_each_event_once(tmp_path: Path) -> None:
    """As two machines with one Redis do."""
    log, store = EventStore(tmp_path), MemoryStore()
    log.append([[event(str(n)) for n in range(300)]])

    async def main() -> None:
        tellers = [Teller(log, store, limit=7, pause_s=0.01, say=print) for _ in range(2)]
        running = [asyncio.create_task(t.run()) for t in tellers]
        await until(lambda: counted(store) == 300)
        log.append([[event("more")]])
        await asyncio.gather(*(t.told(5) for t in tellers))
        assert counted(store) == 301
        for teller, task in zip(tellers, running, strict=True):
            assert teller.position == "301"
            await teller.close(1)
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(main())
    log.close()


def test_a_store_that_comes_back_empty_is_told_everything_again(tmp_path: Path) -> None:
    class Emptied(MemoryStore):
        def empty(self) -> None:
            self.__init__()  # type: ignore[misc]

    store = Emptied()

    async def body(client: EventsClient) -> None:
        await client.send([event("a"), event("b")])
        store.empty()
        await client.send([event("c")])
        await until(lambda: counted(store) == 3)

    with_consumer(tmp_path, Consumer(tmp_path, store, pace=FAST), body)


def test_upkeep_raises_the_watermark_of_an_idle_stream(tmp_path: Path) -> None:
    log, store = EventStore(tmp_path), MemoryStore()

    async def main() -> None:
        teller = Teller(log, store, limit=7, pause_s=0.01, say=print)
        await teller.keep(tmp_path, 77_000_000)
        assert (await store.read_user("u")).watermark_us == 77_000_000
        store.away = True
        with pytest.raises(Unreachable):
            await teller.keep(tmp_path, 88_000_000)

    asyncio.run(main())
    log.close()


def test_waiting_events_are_bounded_by_their_bytes_too(tmp_path: Path) -> None:
    async def body(client: EventsClient) -> None:
        large = [client.send([event(str(n), context={"k": "x" * 250})]) for n in range(20)]
        results = await asyncio.gather(*large, return_exceptions=True)
        refused = [r for r in results if isinstance(r, Overloaded)]
        assert len(refused) == 18
        assert await client.send([event("later")]) == (1, 0)

    with_consumer(tmp_path, Consumer(tmp_path, pace=replace(FAST, max_waiting_bytes=700, gather_s=0.3)), body)


def test_a_client_with_too_many_unanswered_batches_waits_in_its_socket(tmp_path: Path) -> None:
    async def body(client: EventsClient) -> None:
        assert await asyncio.gather(*(client.send([event(str(n))]) for n in range(50))) == [(1, 0)] * 50

    with_consumer(tmp_path, Consumer(tmp_path, pace=replace(FAST, max_unanswered=3)), body)


@pytest.mark.redis
def test_while_the_log_in_redis_is_away_events_are_refused_and_then_work_again(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    server: RedisServer = started(tmp_path / "redis", durable=True)
    store = MemoryStore()

    async def body(client: EventsClient) -> None:
        assert await client.send([event("a")]) == (1, 0)
        await asyncio.to_thread(server.stop)
        for name in ("b", "c"):
            with pytest.raises(Unreachable, match="the event log in Redis"):
                await client.send([event(name)])
        await asyncio.to_thread(server.start)
        assert await client.send([event("a"), event("b"), event("c")]) == (2, 1)
        await until(lambda: counted(store) == 3)

    try:
        log = RedisEventLog(server.url, timeout_s=2)
        with_consumer(tmp_path / "h", Consumer(tmp_path / "h", store, pace=FAST, log=log), body)
    finally:
        server.stop()


@pytest.mark.redis
def test_an_online_store_that_hangs_holds_up_neither_answers_nor_the_end_of_the_consumer(tmp_path: Path) -> None:
    server: RedisServer = started(tmp_path, durable=False)
    home = tmp_path / "h"

    async def main() -> None:
        client = EventsClient(home, online_store=server.url)
        assert await client.send([event("a")]) == (1, 0)
        server.freeze()
        assert await client.send([event("b")]) == (1, 0)
        pid = int(lock_path(home).read_text())
        os.kill(pid, signal.SIGTERM)
        await until(lambda: not alive(pid), 12)
        assert await client.send([event("b"), event("c")]) == (1, 1)
        os.kill(int(lock_path(home).read_text()), signal.SIGKILL)
        await client.close()

    try:
        asyncio.run(main())
    finally:
        server.stop()
