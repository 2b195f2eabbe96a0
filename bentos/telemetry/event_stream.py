"""The event log on Redis Streams: several machines, one log. As durable as Redis is told to be, so that is checked.

sr:{events}:log         the stream; field `e` is the event as MessagePack, ids are of Redis' clock
sr:{events}:seen:{day}  digests of the event ids accepted on a day; eight of them are the 7 days of the dedupe window
sr:{events}:id          which log this is

The braces keep all keys in one slot of a cluster: deduplication and adding are one script, which is atomic, and its
effects are on the disk before the reply where `appendfsync` is `always`.
"""

import hashlib
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from contracts.errors import Refused, Unreachable, UsageError
from contracts.events import Event
from features.online.url import ask_by_hand, without_secrets

log = logging.getLogger("streamrec.telemetry")

WINDOW_DAYS = 7
_DAY_US = 86_400_000_000
_CLOCKS_US = 3_600_000_000
# Events in one script: Lua's stack ends at 8,000, and Redis answers nobody else meanwhile (5 ms).
_CHUNK = 1_000
_SCAN = 5_000  # entries a look, when all are looked through
_WANTED = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
_TRIMS = 100  # of up to 10,000 entries each, in one call of `advance`
# An error of Redis → what the operator does.
_NEXT: dict[type[RedisError], str] = {
    OutOfMemoryError: "raise `maxmemory` of this Redis, or lower event_log_days",
    ReadOnlyError: "point event_log at the primary",
    BusyLoadingError: "wait until this Redis has read its file",
}
_DISK = "free disk space on the host of this Redis"

# KEYS: stream, the days of the window, today's first; ARGV: seconds a day is kept, then digest, event, … → a string of
# 1 for each event that is new and 0 for a repeat.
_ADD = """
local ids, flags, new, known = {}, {}, {}, {}
for i = 2, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
for d = 2, #KEYS do
  local found = redis.call('SMISMEMBER', KEYS[d], unpack(ids))
  for i, hit in ipairs(found) do if hit == 1 then known[ids[i]] = true end end
end
for i, id in ipairs(ids) do
  if known[id] then
    flags[i] = '0'
  else
    known[id] = true
    flags[i] = '1'
    new[#new + 1] = id
    redis.call('XADD', KEYS[1], '*', 'e', ARGV[i * 2 + 1])
  end
end
if #new > 0 then
  redis.call('SADD', KEYS[2], unpack(new))
  redis.call('EXPIRE', KEYS[2], ARGV[1])
end
return table.concat(flags)
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode


class RedisEventLog:
    """Opening reaches for nothing. `append` and `advance` are for one thread; `after` is for any.

    Args:
        url: `redis://host:port/db`.
        keep_days: how long events stay in the stream; they are in memory.

    Raises:
        UsageError: the URL cannot be read.
    """

    def __init__(self, url: str, *, keep_days: int = 30, timeout_s: float = 5.0, prefix: str = "sr:{events}:") -> None:
        self._url = url
        self._keep_days = keep_days
        self._prefix = prefix
        self._checked = False
        self._id = ""
        self.undecodable = 0
        try:
            # Again once after a lost connection: the script takes repeats, and a server that was started again has
            # closed the one in the pool. Not after a timeout, which has cost its time already.
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            )
        except ValueError:  # its words quote what was taken for a port, which may be half a password
            raise UsageError(f"`event_log` is no address of a Redis: {without_secrets(url)}") from None

    @property
    def id(self) -> str:
        """
        Raises:
            Unreachable: Redis is away.
        """
        if not self._id:
            with self._reaching():
                self._redis.set(self._name("id"), uuid.uuid4().hex, nx=True)
                self._id = f"redis:{self._redis.get(self._name('id')).decode()}"  # type: ignore[union-attr]
        return self._id

    def check(self) -> None:
        """Whether this Redis keeps what it has answered for.

        Raises:
            Refused: it does not. Unreachable: it is away.
        """
        with self._reaching():
            try:
                found: dict[str, str] = {}
                for name in (*_WANTED, "maxmemory"):
                    found |= {_text(k): _text(v) for k, v in self._redis.config_get(name).items()}
            except ResponseError as error:  # a managed Redis hides its configuration
                if not self._redis.info("persistence").get("aof_enabled"):
                    found = {"appendonly": "no"}
                else:
                    found = {}
                    log.warning(
                        "Redis at %s does not tell its configuration (%s): an event answered with 202 is durable only"
                        " with `appendfsync always` and `maxmemory-policy noeviction`",
                        without_secrets(self._url),
                        error,
                    )
        off = {name: found[name] for name, value in _WANTED.items() if found.get(name, value) != value}
        if found.get("maxmemory") == "0":
            off.pop("maxmemory-policy", None)  # nothing is ever evicted
        if off:
            name = next(iter(off))
            raise Refused(
                f"the event log in Redis at {without_secrets(self._url)} would lose events: "
                + ", ".join(f"`{n}` is {v}, not {_WANTED[n]}" for n, v in off.items()),
                next_command=ask_by_hand(self._url, f"config set {name} {_WANTED[name]}"),
            )
        self._checked = True

    def append(self, batches: Sequence[Sequence[Event]]) -> list[tuple[int, int]]:
        """Store several batches with one sync of the file; (accepted, duplicates) of each. Durable on return.

        Raises:
            Unreachable: Redis is away, full or read-only. Some of the events may be stored: sent again, they are
                repeats. Refused: it would not keep them.
        """
        if not self._checked:
            self.check()
        events = [e for batch in batches for e in batch]
        with self._reaching(), self._redis.pipeline(transaction=False) as pipe:
            for start in range(0, len(events), _CHUNK):
                chunk = events[start : start + _CHUNK]
                today = max(e.received_us for e in chunk) // _DAY_US
                keys = [self._name("log"), *(self._name(f"seen:{today - d}") for d in range(WINDOW_DAYS + 1))]
                arguments: list[Any] = [(WINDOW_DAYS + 1) * 86_400]
                for e in chunk:
                    arguments += hashlib.blake2b(e.event_id.encode(), digest_size=16).digest(), _encode(e)
                pipe.eval(_ADD, len(keys), *keys, *arguments)
            # Errors as they are: the pipeline's own words would quote the script.
            answers = pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            flags = b"".join(answers)
        counts, at = [], 0
        for batch in batches:
            accepted = flags.count(b"1", at, at + len(batch))
            counts.append((accepted, len(batch) - accepted))
            at += len(batch)
        return counts

    def after(self, position: str, limit: int) -> tuple[list[Event], str]:
        """
        Raises:
            Unreachable: Redis is away.
        """
        with self._reaching():
            found: Any = self._redis.xrange(self._name("log"), f"({position}" if position else "-", "+", limit)
        events = []
        for _, fields in found:
            try:
                events.append(_decode(fields[b"e"]))
            except (KeyError, ValueError):  # none of ours: it must not stop the others
                self.undecodable += 1
        return events, found[-1][0].decode() if found else position

    def advance(self, now_us: int, taken: str | None = None) -> None:
        """Trim what is older than `keep_days`, but nothing after `taken`, the position of an online store that still
        needs it; and see that the settings are what they were.

        Raises:
            Unreachable: Redis is away.
        """
        oldest = f"{max(0, now_us // 1000 - self._keep_days * 86_400_000)}-0"
        if taken is not None:
            oldest = min(oldest, taken or "0-0", key=_order)
        with self._reaching():
            for _ in range(_TRIMS):
                if not self._redis.xtrim(self._name("log"), minid=oldest, approximate=True):
                    break
        self._checked = False

    def forget(self, user_id: str, *, dry_run: bool = False) -> int:
        """Remove every event of one user; how many there were. Their ids stay in the dedupe window, as hashes.

        Redis' file has the words until it is rewritten, which this asks for.

        Raises:
            Unreachable: Redis is away.
        """
        gone, position = 0, "-"
        with self._reaching():
            while True:
                found: Any = self._redis.xrange(self._name("log"), position, "+", _SCAN)
                if not found:
                    break
                theirs = [at for at, fields in found if _is_of(fields, user_id)]
                if theirs and not dry_run:
                    self._redis.xdel(self._name("log"), *theirs)
                gone += len(theirs)
                position = f"({found[-1][0].decode()}"
            if gone and not dry_run:
                with suppress(RedisError):  # one is under way, or a managed Redis does it by itself
                    self._redis.bgrewriteaof()
        return gone

    def close(self) -> None:
        self._redis.close()

    def _name(self, name: str) -> str:
        return self._prefix + name

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            words = str(error)
            next_command = next((c for kind, c in _NEXT.items() if isinstance(error, kind)), ask_by_hand(self._url))
            if "MISCONF" in words:
                next_command = _DISK
            shown = without_secrets(self._url)
            raise Unreachable(f"the event log in Redis at {shown}: {words}", next_command=next_command) from error


def _is_of(fields: Mapping[bytes, bytes], user_id: str) -> bool:
    try:
        return _decode(fields[b"e"]).user_id == user_id
    except (KeyError, ValueError):
        return False


def position_before(since_us: int | None) -> str:
    """A position behind which everything lies that happened from then on. An event is accepted after it happened, but
    for the clocks of those who sent it and of Redis."""
    return "" if since_us is None else f"{max(0, (since_us - _CLOCKS_US) // 1000)}-0"


def _order(position: str) -> tuple[int, int]:
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number or 0)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
