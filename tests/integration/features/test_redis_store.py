"""What only a real Redis shows: one round trip, time limits, death and return."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from contracts.errors import Unreachable
from features.online.base import Interaction, PrecomputedList, Stamped
from features.online.redis import RedisStore
from features.parity import DAY_US, parity
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    opened = RedisStore(redis_url, timeout_s=2.0)
    yield opened
    opened.close()


def test_a_user_is_read_in_one_round_trip(store: RedisStore, redis_url: str) -> None:
    store.write_users({"u": {"user_tenure_days": Stamped(1.0, 1)}})
    store.append_interactions([("u", Interaction("a", "click", 5))])
    store.publish_lists("s", {"u": PrecomputedList(("x",), (1.0,), "s", "m", 1, "all")})

    async def reads() -> int:
        await store.read_user("u")  # connects
        with redis.Redis.from_url(redis_url) as client:
            client.config_resetstat()
            await store.read_user("u")
            calls = client.info("commandstats")
        assert {name for name in calls if name.startswith("cmdstat_h")} == {"cmdstat_hgetall", "cmdstat_hget"}
        return int(calls["cmdstat_exec"]["calls"])  # type: ignore[index]

    # Everything travels in one MULTI … EXEC.
    assert asyncio.run(reads()) == 1


def test_a_store_that_does_not_answer_costs_its_timeout_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout_s=0.05)
        started = time.perf_counter()
        with pytest.raises(Unreachable, match="does not answer"):
            asyncio.run(store.read_user("u"))
        assert time.perf_counter() - started < 1.0
        store.close()


def test_a_store_that_dies_is_unreachable_and_is_found_again_when_it_returns(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    server = RedisServer(tmp_path_factory.mktemp("mortal"))
    server.start()
    store = RedisStore(server.url, timeout_s=1.0)
    try:
        with asyncio.Runner() as loop:
            assert loop.run(store.read_user("u")).batch == {}
            server.stop()
            with pytest.raises(Unreachable):
                loop.run(store.read_user("u"))
            server.start()
            deadline = time.monotonic() + 5
            while True:
                try:
                    loop.run(store.read_user("u"))
                    break
                except Unreachable:
                    assert time.monotonic() < deadline
            store.close()
    finally:
        server.stop()


def test_values_that_someone_else_wrote_are_counted_and_missing(store: RedisStore, redis_url: str) -> None:
    store.write_users({"u": {"user_tenure_days": Stamped(1.0, 1)}})
    with redis.Redis.from_url(redis_url) as client:
        client.hset("sr:user:u", mapping={"user_positives_30d": "7", "user_category_preferences": "0" * 20 + "\xff"})
        client.zadd("sr:last:u", {"no separators": 1})
        client.hset("sr:lists", "u", "rubbish")
        client.set("sr:watermark", "soon")
    state = asyncio.run(store.read_user("u"))
    assert set(state.batch) == {"user_tenure_days"}
    assert (state.last, state.precomputed, state.watermark_us) == ((), None, None)
    assert set(store.corrupt) == {
        "user_positives_30d",
        "user_category_preferences",
        "user_last_10_interactions",
        "precomputed list",
    }


def test_a_key_of_another_type_is_an_unreachable_store_not_a_crash(store: RedisStore, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("sr:user:u", "a string where a hash belongs")
    with pytest.raises(Unreachable):
        asyncio.run(store.read_user("u"))


def test_readers_never_meet_half_a_publication(store: RedisStore) -> None:
    """Two generations of lists swapped again and again: a reader meets one of them whole, never none."""
    lists = {
        name: {f"u{n}": PrecomputedList((name,), (1.0,), name, "m", 1, "all") for n in range(50)}
        for name in ("s1", "s2")
    }
    store.publish_lists("s1", lists["s1"])

    async def race() -> set[str]:
        met = set()
        publishing = asyncio.create_task(asyncio.to_thread(swap))
        while not publishing.done():
            state = await store.read_user("u7")
            assert state.precomputed is not None
            met.add(state.precomputed.snapshot)
        await publishing
        return met

    def swap() -> None:
        for _ in range(20):
            store.publish_lists("s2", lists["s2"])
            store.publish_lists("s1", lists["s1"])

    assert asyncio.run(race()) <= {"s1", "s2"}


def test_parity_holds_through_redis_too(store: RedisStore, tmp_path: Path) -> None:
    count = 300
    random = np.random.default_rng(2)
    at = np.sort(random.integers(0, 9 * DAY_US, count)) // 600_000_000 * 600_000_000
    log = {
        "user_id": [f"u{n}" for n in random.integers(0, 5, count)],
        "item_id": [f"i{n}" for n in random.integers(0, 6, count)],
        "timestamp": pa.array(at, pa.timestamp("us", "UTC")),
        "event": random.choice(["impression", "click"], count).tolist(),
    }
    published = pa.array([0] * 6, pa.timestamp("us", "UTC"))
    items = {"item_id": [f"i{n}" for n in range(6)], "category": list("aabbcc"), "published_at": published}
    pq.write_table(pa.table(log), tmp_path / "interactions.parquet")
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    (tmp_path / "dataset.toml").write_text('name = "x"\n[[positives]]\nevent = "click"\n')
    result = parity(tmp_path, store, moments=150)
    assert result.mismatches == []
    assert result.user_moments == 150
