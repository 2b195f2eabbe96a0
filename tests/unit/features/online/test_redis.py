"""What needs no Redis: an address where nobody listens."""

import asyncio

import pytest

from contracts.errors import Unreachable, UsageError
from features.online.redis import RedisStore


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("redis://127.0.0.1:1/0", "redis-cli -u redis://127.0.0.1:1/0 ping"),
        ("redis://:secret@127.0.0.1:1/0", "REDISCLI_AUTH=… redis-cli -u redis://127.0.0.1:1/0 ping"),
        ("redis://me:secret@127.0.0.1:1/0", "REDISCLI_AUTH=… redis-cli --user me -u redis://127.0.0.1:1/0 ping"),
        ("unix://:secret@/nowhere/redis.sock", "REDISCLI_AUTH=… redis-cli -s /nowhere/redis.sock ping"),
    ],
)
def test_a_redis_that_is_away_is_named_with_a_command_that_runs_and_without_its_password(
    url: str, command: str
) -> None:
    store = RedisStore(url)
    with pytest.raises(Unreachable) as away:
        asyncio.run(store.read_user("u"))
    assert away.value.next_command == command
    assert f"Redis at {url.replace('me:secret@', '').replace(':secret@', '')} does not answer" in away.value.message
    assert "secret" not in away.value.message
    store.close()


def test_an_address_that_cannot_be_read_is_refused_without_its_password() -> None:
    with pytest.raises(UsageError) as refused:
        RedisStore("redis://:sec/ret@host/0")
    assert "sec" not in refused.value.message
    assert "redis://host/0" in refused.value.message
