"""What only the log in Redis does: settings that are checked, memory that is full, a window, trimming."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bentos.telemetry.event_stream import WINDOW_DAYS, RedisEventLog
from contracts.errors import Refused, Unreachable, UsageError
from contracts.events import Event
from tests.redis_server import RedisServer, started

pytestmark = pytest.mark.redis
DAY_US = 86_400_000_000
NOW = time.time_ns() // 1000


@pytest.fixture
def client(durable_url: str) -> Iterator[redis.Redis]:
    """What a test sets is set back."""
    with redis.Redis.from_url(durable_url) as client:
        wanted = ("appendfsync", "appendonly", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy")
        before = {name: client.config_get(name)[name] for name in wanted}
        yield client
        for name, value in before.items():
            client.config_set(name, value)


@pytest.fixture
def log(durable_url: str, client: redis.Redis) -> Iterator[RedisEventLog]:
    log = RedisEventLog(durable_url)
    yield log
    log.close()


def event(event_id: str, received_us: int = NOW, **more: object) -> Event:
    return Event(event_id, "u1", "i1", "click", received_us, received_us, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("appendfsync", "everysec"), ("appendonly", "no"), ("no-appendfsync-on-rewrite", "yes")],
)
def test_a_redis_that_would_lose_events_is_refused_with_the_command_that_mends_it(
    log: RedisEventLog, client: redis.Redis, name: str, value: str
) -> None:
    client.config_set(name, value)
    with pytest.raises(Refused, match=f"`{name}` is {value}") as refused:
        log.append([[event("a")]])
    assert refused.value.next_command
    *_, setting, wanted = refused.value.next_command.split()
    assert setting == name
    assert log.after("", 10)[0] == []
    client.config_set(name, wanted)
    assert log.append([[event("a")]]) == [(1, 0)]


def test_a_redis_that_evicts_is_refused_only_where_its_memory_has_an_end(
    log: RedisEventLog, client: redis.Redis
) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    log.check()
    client.config_set("maxmemory", "100mb")
    with pytest.raises(Refused, match="maxmemory-policy"):
        log.check()


def test_a_setting_that_changes_under_the_log_is_found_at_the_next_upkeep(
    log: RedisEventLog, client: redis.Redis
) -> None:
    log.append([[event("a")]])
    client.config_set("appendfsync", "everysec")
    log.advance(NOW)
    with pytest.raises(Refused, match="appendfsync"):
        log.append([[event("b")]])


def test_a_redis_that_hides_its_settings_is_taken_with_a_warning(
    durable_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.acl_setuser("app", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-config"])
    log = RedisEventLog(durable_url.replace("redis://", "redis://app:secret@"))
    try:
        assert log.append([[event("a")]]) == [(1, 0)]
        assert "appendfsync always" in caplog.text
        client.config_set("appendonly", "no")
        with pytest.raises(Refused, match="appendonly") as refused:
            log.check()
        assert "secret" not in f"{refused.value} {refused.value.next_command} {caplog.text}"
    finally:
        log.close()
        client.acl_deluser("app")


def test_full_memory_stores_nothing_says_what_to_do_and_passes(log: RedisEventLog, client: redis.Redis) -> None:
    log.append([[event("a")]])
    client.config_set("maxmemory", "1mb")
    with pytest.raises(Unreachable, match="maxmemory") as full:
        log.append([[event("a"), event("b")]])
    assert "maxmemory" in (full.value.next_command or "")
    client.config_set("maxmemory", "0")
    assert [e.event_id for e in log.after("", 10)[0]] == ["a"]
    assert log.append([[event("a"), event("b")]]) == [(1, 1)]


def test_an_event_id_counts_once_for_seven_days_and_its_memory_ends_after_them(
    log: RedisEventLog, client: redis.Redis
) -> None:
    log.append([[event("a", NOW)]])
    assert log.append([[event("a", NOW + WINDOW_DAYS * DAY_US)]]) == [(0, 1)]
    assert log.append([[event("a", NOW + (WINDOW_DAYS + 1) * DAY_US)]]) == [(1, 0)]
    remembered = client.keys("sr:{events}:seen:*")
    assert len(remembered) == 2
    for key in remembered:
        assert WINDOW_DAYS * 86_400 < client.ttl(key) <= (WINDOW_DAYS + 1) * 86_400


def test_what_is_old_is_trimmed_but_nothing_that_an_online_store_still_needs(durable_url: str) -> None:
    log = RedisEventLog(durable_url, keep_days=8)
    log.append([[event(str(n)) for n in range(2_000)]])
    _, middle = log.after("", 1_000)
    later = NOW + 30 * DAY_US
    log.advance(later, taken=middle)
    left = [int(e.event_id) for e in log.after("", 10_000)[0]]
    assert left[-1] == 1_999
    assert 0 < left[0] <= 1_000  # Redis trims by whole nodes
    log.advance(later)
    assert len(log.after("", 10_000)[0]) < 200
    log.close()


def test_an_entry_of_someone_else_stops_nobody(log: RedisEventLog, client: redis.Redis) -> None:
    log.append([[event("a")]])
    client.xadd("sr:{events}:log", {"e": b"\xc1"})
    client.xadd("sr:{events}:log", {"other": b"x"})
    log.append([[event("b")]])
    events, position = log.after("", 10)
    assert [e.event_id for e in events] == ["a", "b"]
    assert log.after(position, 10) == ([], position)
    assert log.undecodable == 2


def test_a_log_that_was_killed_and_started_again_answers_at_once_and_has_everything(tmp_path: Path) -> None:
    (server := started(tmp_path, durable=True)).stop()
    server.start()
    log = RedisEventLog(server.url)
    try:
        assert log.append([[event("a")]]) == [(1, 0)]
        name = log.id
        server.stop()
        with pytest.raises(Unreachable, match=r"Redis at redis://127\.0\.0\.1") as away:
            log.append([[event("b")]])
        assert "ping" in (away.value.next_command or "")
        server.start()
        assert log.append([[event("a"), event("b")]]) == [(1, 1)]
        assert RedisEventLog(server.url).id == name
    finally:
        log.close()
        server.stop()


def test_a_server_without_the_file_is_refused(tmp_path: Path) -> None:
    server: RedisServer = started(tmp_path, durable=False)
    log = RedisEventLog(server.url)
    try:
        with pytest.raises(Refused, match="`appendonly` is no"):
            log.append([[event("a")]])
    finally:
        log.close()
        server.stop()


def test_an_address_that_is_none_is_told_without_its_password() -> None:
    with pytest.raises(UsageError) as off:
        RedisEventLog("redis://user:sec/ret@host:port/0")
    assert "sec" not in str(off.value)
