"""Kill -9 of the consumer, of workers and of Redis, at random moments, while clients send events.

What must hold at the end: every event that got a 202 is in the log exactly once, nothing is in the log that was not
sent, and the streaming features equal a recount of the log.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.reference_world import write_world
from bentos.telemetry.event_log import read_events
from bentos.telemetry.rendezvous import lock_path
from contracts.settings import Settings
from features.item_counts import HOUR_US
from features.online.base import OnlineStore
from features.online.open import open_store
from tests.recount import recount
from tests.redis_server import RedisServer, started
from tests.serving_processes import Served, alive, running

SERVE = ["-m", "cli", "serve", "--port", "0", "--json", "--drain-s", "1", "--workers", "2"]
USERS, ITEMS, CLIENTS = 20, 30, 12
NAMES = ("click", "click", "impression", "completion", "rating", "purchase")
SINCE_US = 100 * 60 * 1_000_000  # events are up to so old: several sessions, in any order


@dataclass
class Load:
    """What clients sent and were told. answered: ids of events that got a 202."""

    url: str
    seed: int
    answered: set[str] = field(default_factory=set)
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    stop: bool = False

    async def client(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")  # noqa: S311 - repeatable
        async with httpx.AsyncClient(base_url=self.url, timeout=20) as http:
            while not self.stop:
                body = [self._event(chance, f"{number}-{len(self.sent)}-{i}") for i in range(chance.randint(1, 20))]
                if self.answered and chance.random() < 0.1:  # a client that did not hear its 202
                    body.append(self.sent[chance.choice(sorted(self.answered)[-50:])])
                await self._until_answered(http, body)

    def _event(self, chance: random.Random, event_id: str) -> dict[str, Any]:
        name = chance.choice(NAMES)
        value = {"completion": chance.random(), "rating": chance.randint(0, 10) / 2}.get(name)
        at = time.time() - chance.random() * chance.random() * SINCE_US / 1e6
        event = {
            "event_id": event_id,
            "user_id": f"u{chance.randrange(USERS)}",
            "item_id": f"i{chance.randrange(ITEMS)}",
            "event": name,
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{chance.randrange(10**6):06d}Z",
        } | ({} if value is None else {"value": value})
        self.sent[event_id] = event
        return event

    async def _until_answered(self, http: httpx.AsyncClient, body: list[dict[str, Any]]) -> None:
        while True:
            try:
                response = await http.post("/v1/events", json=body)
            except httpx.TransportError:
                self.told["no answer"] += 1
            else:
                self.told[str(response.status_code)] += 1
                if response.status_code == 202:
                    self.told["duplicates"] += response.json()["duplicates"]
                    self.answered.update(e["event_id"] for e in body)
                    return
                assert response.status_code in (429, 503), response.text
            if self.stop:
                return  # never answered: it may be in the log or not
            await asyncio.sleep(0.02)


@dataclass
class Killer:
    """Kills one of them at a time, at moments drawn from `seed`, while clients are being answered."""

    served: Served
    server: RedisServer | None
    load: Load
    kills: Counter[str] = field(default_factory=Counter)

    async def run(self, seconds: float, mean_pause_s: float) -> None:
        chance = random.Random(self.load.seed)  # noqa: S311 - repeatable
        end = time.monotonic() + seconds
        targets = ["consumer", "consumer", "worker", *(["redis", "redis"] if self.server else [])]
        while time.monotonic() < end or not set(targets) <= self.kills.keys():
            assert time.monotonic() < end + 120, f"only {dict(self.kills)} were killed"
            before = len(self.load.answered)
            await _until(lambda before=before: len(self.load.answered) > before, 90, "an answer between two kills")
            await asyncio.sleep(chance.expovariate(1 / mean_pause_s))
            # First each of them once, so that a short run kills them all.
            spared = [t for t in dict.fromkeys(targets) if t not in self.kills]
            target = spared[0] if spared else chance.choice(targets)
            if await self._kill(target):
                self.kills[target] += 1

    async def _kill(self, target: str) -> bool:
        if target == "redis":
            assert self.server
            await asyncio.to_thread(self.server.stop)
            await asyncio.to_thread(self.server.start)
            return True
        with contextlib.suppress(OSError, ValueError):
            home = self.served.home
            pid = int(lock_path(home).read_text()) if target == "consumer" else await asyncio.to_thread(self._worker)
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def _worker(self) -> int:
        return int(self.served.ready()["pid"])


async def _until(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, users=50, items=60)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    server = started(tmp_path / "redis", durable=True)
    yield server
    server.stop()


def crash(
    world: Path, home: Path, event_log: str, online_store: str, server: RedisServer | None, seconds: float, seed: int
) -> dict[str, Any]:
    """Load and kills for so long, then the checks; what happened, in numbers."""
    settings = Settings(home=home, event_log=event_log, online_store=online_store)
    env = {
        "STREAMREC_EVENT_LOG": event_log,
        "STREAMREC_ONLINE_STORE": online_store,
        "STREAMREC_BREAKER_OPEN_S": "0.5",  # half a minute of refusals after each kill would be little load
    }
    with running(SERVE, home, world, **env) as served:
        load = Load(served.url, seed)
        killer = Killer(served, server, load)

        async def main() -> None:
            clients = [asyncio.create_task(load.client(n)) for n in range(CLIENTS)]
            try:
                await killer.run(seconds, mean_pause_s=0.4 if seconds < 60 else 1.0)
                before = len(load.answered)
                await _until(lambda: len(load.answered) > before, 60, "an answer after the last kill")
            finally:
                load.stop = True
                await asyncio.gather(*clients)

        asyncio.run(main())
        rows = read_events(home, event_log=event_log).to_pylist()
        stored = Counter(row["event_id"] for row in rows)
        lost = load.answered - stored.keys()
        assert not lost, f"{len(lost)} of {len(load.answered)} answered events are not in the log"
        assert set(stored.values()) == {1}
        assert stored.keys() <= load.sent.keys()
        for row in rows:
            sent = load.sent[row["event_id"]]
            assert (row["user_id"], row["item_id"], row["event"], row["value"]) == (
                sent["user_id"],
                sent["item_id"],
                sent["event"],
                sent.get("value"),
            )
        store = open_store(settings)
        try:
            asyncio.run(_equal(store, rows))
        finally:
            store.close()
    return {
        "log": event_log.split(":")[0],
        "online_store": online_store.split(":")[0],
        "seconds": seconds,
        "seed": seed,
        "answered": len(load.answered),
        "in_log": len(stored),
        "lost": 0,
        "kills": dict(killer.kills),
        "told": dict(load.told),
    }


async def _equal(store: OnlineStore, rows: list[dict[str, Any]]) -> None:
    """The features, as soon as a consumer that was just killed has been replaced, against a recount."""
    now_us = (max(row["timestamp_us"] for row in rows) // HOUR_US + 1) * HOUR_US
    wanted = recount(rows, now_us)
    deadline = time.monotonic() + 30
    while True:
        counts = store.read_item_counts(now_us)
        keys = list(zip(counts.item_ids, counts.events, counts.grade.tolist(), strict=True))
        found = {key: n for key, n in zip(keys, counts.n.tolist(), strict=True) if n}
        if found == wanted.count or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.1)
    assert found == wanted.count
    assert dict(zip(keys, counts.share.tolist(), strict=True)) == pytest.approx(dict(wanted.share), abs=1e-6)
    assert dict(zip(keys, counts.decayed.tolist(), strict=True)) == pytest.approx(dict(wanted.decayed), rel=1e-9)
    for user, session in wanted.session.items():
        state = await store.read_user(user)
        assert [(i.timestamp_us, i.item_id, i.event) for i in state.last] == wanted.last.get(user, [])
        assert state.session == session


def report(figures: dict[str, Any]) -> None:
    print(json.dumps(figures))
    with contextlib.suppress(KeyError), Path(os.environ["STREAMREC_CRASH_REPORT"]).open("a") as file:
        file.write(json.dumps(figures) + "\n")


def test_killed_at_random_moments_the_embedded_log_loses_nothing(world: Path, tmp_path: Path) -> None:
    figures = crash(world, tmp_path / "home", "sqlite", "sqlite", None, seconds=3, seed=1)
    assert figures["kills"].keys() == {"consumer", "worker"}


@pytest.mark.redis
def test_killed_at_random_moments_the_log_in_redis_loses_nothing(
    world: Path, tmp_path: Path, server: RedisServer
) -> None:
    figures = crash(world, tmp_path / "home", server.url, server.url, server, seconds=3, seed=2)
    assert figures["kills"].keys() == {"consumer", "worker", "redis"}


@pytest.mark.slow
def test_two_minutes_of_kills_on_the_embedded_log(world: Path, tmp_path: Path) -> None:
    report(crash(world, tmp_path / "home", "sqlite", "sqlite", None, seconds=120, seed=3))


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.parametrize("online_store", ["redis", "sqlite"])
def test_two_minutes_of_kills_on_the_log_in_redis(
    world: Path, tmp_path: Path, server: RedisServer, online_store: str
) -> None:
    store = server.url if online_store == "redis" else "sqlite"
    report(crash(world, tmp_path / "home", server.url, store, server, seconds=120, seed=4))


@pytest.mark.slow
@pytest.mark.redis
def test_half_a_minute_of_kills_on_the_embedded_log_with_features_in_redis(
    world: Path, tmp_path: Path, server: RedisServer
) -> None:
    report(crash(world, tmp_path / "home", "sqlite", server.url, server, seconds=30, seed=5))
