"""Redis as the online store. One MULTI for everything about a user: one round trip, and one moment.

sr:user:{id}    hash, feature → 20 digits of timestamp + MessagePack value
sr:last:{id}    sorted set by time of `item NUL event NUL time`; ties fall in that order, as in features/streaming.py
sr:lists        hash, user → precomputed list. A new set is written beside it and renamed over it: one step
sr:items        hash: version, snapshot
sr:watermark    until when the stream is whole
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from contracts.errors import Unreachable, UsageError
from contracts.serving import HISTORY_LENGTH
from features.online import codec
from features.online.base import Interaction, ItemSnapshot, PrecomputedList, Stamped, UserState
from features.online.url import without_secrets

_STAMP = 20  # digits
_BATCH = 500  # users a pipeline
# KEYS[1]: a user's hash; ARGV: feature, stamped value, … An older stamp never overwrites a newer one.
_MERGE = """
for i = 1, #ARGV, 2 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if not old or string.sub(old, 1, 20) <= string.sub(ARGV[i + 1], 1, 20) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
"""
_RAISE = """
local old = redis.call('GET', KEYS[1])
if not old or tonumber(old) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
"""


class RedisStore:
    """
    Args:
        url: `redis://host:port/db`.
        timeout_s: for connecting and for each answer: a late store must not eat the request's deadline.

    Raises:
        UsageError: the URL cannot be read.
    """

    def __init__(self, url: str, *, timeout_s: float = 0.05, write_timeout_s: float = 5.0, prefix: str = "sr:") -> None:
        self.corrupt: Counter[str] = Counter()
        self._url = url
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: redis.asyncio.Redis | None = None
        self._closing: asyncio.Task[None] | None = None
        try:
            self._sync = redis.Redis.from_url(
                url, socket_timeout=write_timeout_s, socket_connect_timeout=write_timeout_s
            )
        except ValueError:  # its words quote what was taken for a port, which may be half a password
            raise UsageError(
                f"`online_store` is no address of a Redis: {without_secrets(url)};"
                " signs like / ? # @ in a password are written %2F %3F %23 %40"
            ) from None

    async def read_user(self, user_id: str) -> UserState:
        with self._reaching():
            try:
                user = user_id.encode()
            except UnicodeEncodeError:  # a lone surrogate: no stored user has such an id
                return UserState(user_id)
            async with self._of_this_loop().pipeline(transaction=True) as pipe:
                pipe.hgetall(self._key(b"user:" + user))
                pipe.zrange(self._key(b"last:" + user), 0, HISTORY_LENGTH - 1, desc=True)
                pipe.hget(self._name("lists"), user)
                pipe.get(self._name("watermark"))
                features, members, precomputed, watermark = await pipe.execute()
        return codec.user_state(
            user_id,
            dict(self._stamped(features)),
            list(self._interactions(members)),
            precomputed,
            int(watermark) if watermark and watermark.isdigit() else None,
            self.corrupt,
        )

    def write_users(self, rows: Mapping[str, Mapping[str, Stamped]]) -> None:
        encoded = (
            (
                user_id,
                [
                    part
                    for n, s in features.items()
                    for part in (n, f"{s.timestamp_us:0{_STAMP}d}".encode() + codec.encode_value(n, s.value))
                ],
            )
            for user_id, features in rows.items()
        )
        with self._reaching():
            merge = self._sync.register_script(_MERGE)
            while batch := list(islice(encoded, _BATCH)):
                with self._sync.pipeline(transaction=False) as pipe:
                    for user_id, arguments in batch:
                        merge(keys=[self._key(b"user:" + user_id.encode())], args=arguments, client=pipe)
                    pipe.execute()

    def append_interactions(self, rows: Sequence[tuple[str, Interaction]]) -> None:
        if not rows:
            return
        members: dict[str, dict[bytes, int]] = {}
        for user_id, i in rows:
            member = f"{i.item_id}\0{i.event}\0{i.timestamp_us}".encode()
            members.setdefault(user_id, {})[member] = i.timestamp_us
        with self._reaching(), self._sync.pipeline(transaction=True) as pipe:
            for user_id, new in members.items():
                key = self._key(b"last:" + user_id.encode())
                pipe.zadd(key, new)
                pipe.zremrangebyrank(key, 0, -HISTORY_LENGTH - 1)
            pipe.eval(_RAISE, 1, self._name("watermark"), max(i.timestamp_us for _, i in rows))
            pipe.execute()

    def advance_watermark(self, until_us: int) -> None:
        with self._reaching():
            self._sync.eval(_RAISE, 1, self._name("watermark"), until_us)

    def publish_lists(self, snapshot: str, lists: Mapping[str, PrecomputedList]) -> None:
        beside = self._name(f"lists:next:{snapshot}:{os.getpid()}")
        old = self._name(f"lists:old:{snapshot}:{os.getpid()}")
        rows = iter(lists.items())
        with self._reaching():
            self._sync.delete(beside)
            while batch := list(islice(rows, _BATCH)):
                self._sync.hset(beside, mapping={user_id: codec.encode_list(made) for user_id, made in batch})
            with self._sync.pipeline(transaction=True) as pipe:
                # RENAME over a big hash would free it while everyone waits: move it away, unlink it later.
                if self._sync.exists(self._name("lists")):
                    pipe.rename(self._name("lists"), old)
                if lists:
                    pipe.rename(beside, self._name("lists"))
                pipe.execute()
            self._sync.unlink(old)

    def write_item_snapshot(self, snapshot: ItemSnapshot) -> None:
        blob = codec.encode_snapshot(snapshot)
        with self._reaching():
            self._sync.hset(self._name("items"), mapping={"version": snapshot.version, "snapshot": blob})

    def read_item_snapshot(self, newer_than: str | None = None) -> ItemSnapshot | None:
        with self._reaching():
            version: Any = self._sync.hget(self._name("items"), "version")
            if version is None or version.decode(errors="replace") == newer_than:
                return None
            blob: Any = self._sync.hget(self._name("items"), "snapshot")
        return None if blob is None else codec.decode_snapshot(blob, self.corrupt)

    def close(self) -> None:
        self._sync.close()
        client, loop = self._client, self._loop
        self._client = self._loop = None
        if client is None or loop is None or loop.is_closed():
            return  # sockets of a loop that has ended go with the client
        if loop.is_running():
            self._closing = loop.create_task(client.aclose())
        else:
            loop.run_until_complete(client.aclose())

    def _of_this_loop(self) -> redis.asyncio.Redis:
        """Connections belong to the event loop that opened them: another loop gets its own."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # A retry would double the time a dead store costs; the ladder has a better answer.
            self._client = redis.asyncio.Redis.from_url(
                self._url,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
            self._loop = loop
        return self._client

    def _name(self, name: str) -> str:
        return self._prefix + name

    def _key(self, name: bytes) -> bytes:
        return self._prefix.encode() + name

    def _stamped(self, found: Mapping[bytes, bytes]) -> Iterator[tuple[str, tuple[int, bytes]]]:
        for name, value in found.items():
            digits = value[:_STAMP]
            if len(digits) == _STAMP and digits.isdigit():
                yield name.decode(errors="replace"), (int(digits), value[_STAMP:])
            else:
                self.corrupt[name.decode(errors="replace")] += 1

    def _interactions(self, members: Sequence[bytes]) -> Iterator[Interaction]:
        for member in members:
            try:
                item_id, event, at = member.decode().split("\0")
                yield Interaction(item_id, event, int(at))
            except ValueError:
                self.corrupt["user_last_10_interactions"] += 1

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            shown = without_secrets(self._url)
            raise Unreachable(
                f"Redis at {shown} does not answer: {error}", next_command=_ask_by_hand(self._url)
            ) from error


def _ask_by_hand(url: str) -> str:
    """A command that asks the same Redis; a password is left to whoever types it."""
    parts = urlsplit(url)
    password = "REDISCLI_AUTH=… " if parts.password or "password=" in parts.query else ""
    user = f" --user {parts.username}" if password and parts.username else ""
    where = f"-s {unquote(parts.path)}" if parts.scheme == "unix" else f"-u {without_secrets(url)}"
    return f"{password}redis-cli{user} {where} ping"
