"""Redis as the online store. One MULTI for everything about a user: one round trip, and one moment.

sr:user:{id}    hash, feature → 20 digits of timestamp + MessagePack value
sr:last:{id}    sorted set by time of `item NUL event NUL time`; ties fall in that order, as in features/streaming.py
sr:lists        hash, user → precomputed list. A new set is written beside it and renamed over it: one step
sr:items        hash: version, snapshot
sr:watermark    until when the stream is whole
sr:session:{id} the user's sessions; forgotten 30 days after the last
sr:positions    hash, event log → how far this store has taken it in
sr:shown:{name} exposures of this log segment have been counted
sr:decayed      hash, `item NUL event NUL grade` → accumulator of the trending score
sr:hours:{hour} hash, the same with `n`, `v` or `s` behind it → count; each expires after its window
sr:days:{day}   the same by day, for what lies between the ends of a window
"""

import asyncio
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError

from contracts.errors import Unreachable, UsageError
from contracts.events import Event
from contracts.serving import HISTORY_LENGTH
from features.decayed import Decayed
from features.item_counts import (
    DAY_H,
    HOUR_US,
    KEEP_DECAYED_US,
    KEEP_HOURS,
    Count,
    ItemCounts,
    Key,
    by_day,
    count_events,
    decay,
    item_counts,
    parts,
    shown,
    window,
)
from features.online import codec
from features.online.base import Interaction, ItemSnapshot, PrecomputedList, Stamped, UserState
from features.online.url import ask_by_hand, without_secrets
from features.sessions import Session, add_event
from features.streaming import impression_events

_STAMP = 20  # digits
_BATCH = 500  # users a pipeline
_SCAN = 5_000  # fields an HSCAN
_SESSION_S = 30 * 86_400
_ACCUMULATOR = struct.Struct("<dq")  # value, microseconds
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
# KEYS[1]: accumulators; ARGV: field, the value it had, … One that has changed since is not removed.
_FORGET = """
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
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
                pipe.get(self._key(b"session:" + user))
                features, members, precomputed, watermark, sessions = await pipe.execute()
        return codec.user_state(
            user_id,
            dict(self._stamped(features)),
            list(self._interactions(members)),
            precomputed,
            int(watermark) if watermark and watermark.isdigit() else None,
            self.corrupt,
            sessions,
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
        if rows:
            with self._reaching(), self._sync.pipeline(transaction=True) as pipe:
                self._add_last(pipe, rows)
                pipe.eval(_RAISE, 1, self._name("watermark"), max(i.timestamp_us for _, i in rows))
                pipe.execute()

    def position(self, log: str) -> str:
        with self._reaching():
            found: Any = self._sync.hget(self._name("positions"), log)
        return found.decode() if found else ""

    def take_in(self, log: str, events: Sequence[Event], *, after: str, to: str) -> bool:
        """Read, fold, and write in one MULTI that holds only while no position has moved: whoever changes what was read
        moves one."""
        skip = impression_events()
        rows = [(e.user_id, Interaction(e.item_id, e.event, e.timestamp_us)) for e in events if e.event not in skip]
        new = count_events(events)
        with self._reaching(), self._sync.pipeline(transaction=True) as pipe:
            while True:
                pipe.watch(self._name("positions"))  # type: ignore[no-untyped-call]
                found: Any = pipe.hget(self._name("positions"), log)
                if (found.decode() if found else "") != after:
                    return False
                sessions = self._sessions_with(events)
                decayed = self._decayed_with(new.decays)
                pipe.multi()
                self._add_last(pipe, rows)
                for key, folded in sessions.items():
                    pipe.set(key, codec.encode_sessions(folded), ex=_SESSION_S)
                if decayed:
                    pipe.hset(self._name("decayed"), mapping=decayed)
                self._add_hours(pipe, new.hours)
                if events:
                    pipe.eval(_RAISE, 1, self._name("watermark"), max(e.timestamp_us for e in events))
                pipe.hset(self._name("positions"), log, to)
                try:
                    pipe.execute()
                except WatchError:
                    continue
                return True

    def add_shown(self, source: str, hours: Mapping[tuple[int, str], int]) -> bool:
        key = self._name(f"shown:{source}")
        with self._reaching(), self._sync.pipeline(transaction=True) as pipe:
            pipe.watch(key)  # type: ignore[no-untyped-call]
            if pipe.exists(key):
                return False
            pipe.multi()
            pipe.set(key, 1, ex=2 * KEEP_HOURS * 3600)
            self._add_hours(pipe, shown(hours))
            try:
                pipe.execute()
            except WatchError:  # by another machine's consumer, at this moment
                return False
            return True

    def read_item_counts(self, now_us: int) -> ItemCounts:
        decayed: dict[Key, Decayed] = {}
        week: dict[Key, Count] = {}
        first, last = window(now_us)
        with self._reaching():
            for field, value in self._sync.hscan_iter(self._name("decayed"), count=_SCAN):
                if (key := self._item_key(field)) and len(value) == _ACCUMULATOR.size:
                    decayed[key] = Decayed(*_ACCUMULATOR.unpack(value))
            days, (before, after) = parts(first, last)
            names = [f"hours:{h}" for h in (*before, *after)] + [f"days:{d}" for d in days]
            for name in names:
                for key, count in self._counts_in(self._name(name)).items():
                    week[key] = count.plus(week[key]) if key in week else count
            # Hours are there as long as their days: the first of them says since when there are counts.
            there = (hour for hour in range(first, last + 1) if self._sync.exists(self._name(f"hours:{hour}")))
            since = next(there, None)
        return item_counts(now_us, decayed, week, since)

    def forget_counts(self, now_us: int) -> None:
        """The accumulators; hours expire by themselves."""
        with self._reaching():
            key = self._name("decayed")
            old: list[bytes] = []
            for field, value in self._sync.hscan_iter(key, count=_SCAN):
                if len(value) != _ACCUMULATOR.size or _ACCUMULATOR.unpack(value)[1] < now_us - KEEP_DECAYED_US:
                    old += field, value
            for at in range(0, len(old), _SCAN):
                self._sync.eval(_FORGET, 1, key, *old[at : at + _SCAN])

    def advance_watermark(self, until_us: int) -> None:
        with self._reaching():
            self._sync.eval(_RAISE, 1, self._name("watermark"), until_us)

    def forget_user(self, user_id: str) -> int:
        user = user_id.encode()
        with self._reaching(), self._sync.pipeline(transaction=True) as pipe:
            pipe.unlink(*(self._key(kind + user) for kind in (b"user:", b"last:", b"session:")))
            pipe.hdel(self._name("lists"), user_id)
            return sum(int(n) for n in pipe.execute())

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

    def _add_last(self, pipe: Any, rows: Sequence[tuple[str, Interaction]]) -> None:
        members: dict[str, dict[bytes, int]] = {}
        for user_id, i in rows:
            member = f"{i.item_id}\0{i.event}\0{i.timestamp_us}".encode()
            members.setdefault(user_id, {})[member] = i.timestamp_us
        for user_id, new in members.items():
            key = self._key(b"last:" + user_id.encode())
            pipe.zadd(key, new)
            pipe.zremrangebyrank(key, 0, -HISTORY_LENGTH - 1)

    def _sessions_with(self, events: Sequence[Event]) -> dict[bytes, tuple[Session, ...]]:
        """Key → the sessions of a user with these events among them."""
        keys = list(dict.fromkeys(self._key(b"session:" + e.user_id.encode()) for e in events))
        found: Any = self._sync.mget(keys) if keys else []
        sessions = {key: codec.sessions_of(raw, self.corrupt) for key, raw in zip(keys, found, strict=True)}
        for e in events:
            key = self._key(b"session:" + e.user_id.encode())
            sessions[key] = add_event(sessions[key], e.timestamp_us)
        return sessions

    def _decayed_with(self, decays: Mapping[Key, Sequence[int]]) -> dict[Any, Any]:
        """Field → the accumulator with these moments added."""
        fields = [_field(key) for key in decays]
        found: Any = self._sync.hmget(self._name("decayed"), fields) if fields else []
        out: dict[Any, Any] = {}
        for field, raw, moments in zip(fields, found, decays.values(), strict=True):
            known = raw is not None and len(raw) == _ACCUMULATOR.size
            state = decay(Decayed(*_ACCUMULATOR.unpack(raw)) if known else Decayed(), moments)
            out[field] = _ACCUMULATOR.pack(state.value, state.timestamp_us)
        return out

    def _add_hours(self, pipe: Any, hours: Mapping[tuple[int, Key], Count]) -> None:
        for kind, length, counts in (("hours", 1, hours), ("days", DAY_H, by_day(hours))):
            for (at, key), count in counts.items():
                name, field = self._name(f"{kind}:{at}"), _field(key)
                for letter, number in ((b"\0n", count.n), (b"\0v", count.valued), (b"\0s", count.share_nano)):
                    if number:
                        pipe.hincrby(name, field + letter, number)
            for at in {at for at, _ in counts}:
                ends = (at + 1) * length + KEEP_HOURS
                pipe.expireat(self._name(f"{kind}:{at}"), ends * (HOUR_US // 1_000_000))

    def _counts_in(self, name: str) -> dict[Key, Count]:
        found: dict[Key, dict[str, int]] = {}
        for field, value in self._sync.hscan_iter(name, count=_SCAN):
            if key := self._item_key(field[:-2]):
                found.setdefault(key, {})[chr(field[-1])] = int(value)
        return {key: Count(c.get("n", 0), c.get("v", 0), c.get("s", 0)) for key, c in found.items()}

    def _item_key(self, field: bytes) -> Key | None:
        try:
            item_id, event, grade = field.decode().split("\0")
            return Key(item_id, event, int(grade))
        except ValueError:
            self.corrupt["item counts"] += 1
            return None

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
                f"Redis at {shown} does not answer: {error}", next_command=ask_by_hand(self._url)
            ) from error


def _field(key: Key) -> bytes:
    return f"{key.item_id}\0{key.event}\0{key.grade}".encode()
