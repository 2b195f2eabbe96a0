"""The live catalogue that several machines share, in the Redis of their online store.

Each machine's processes read its own `catalogue.db`, which goes on when Redis is away; the consumer of each machine
keeps that file in step with this.

sr:catalogue         hash: identity, and version, one more with each change
sr:catalogue:items   hash, item → MessagePack state
sr:catalogue:at      sorted set, item by the version at which its state came about
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import redis
from redis.exceptions import RedisError, WatchError

from contracts.errors import Unreachable
from contracts.live_items import ItemChange, ItemState, after
from features.online.url import without_secrets

TRIES = 50  # against other machines that write at the same moment
_decode = msgspec.msgpack.Decoder(ItemState).decode
_encode = msgspec.msgpack.Encoder().encode


class Position(NamedTuple):
    """How far somebody has read: which catalogue, and its version. identity "": none."""

    identity: str = ""
    version: int = 0


class SharedCatalogue:
    """One thread at a time. All methods raise `Unreachable` when Redis is away."""

    def __init__(self, url: str, *, timeout_s: float = 2.0, prefix: str = "sr:") -> None:
        self._url = url
        self._redis: Any = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        self._head, self._items, self._at = (prefix + n for n in ("catalogue", "catalogue:items", "catalogue:at"))

    def head(self) -> Position:
        with self._reaching():
            return self._position(self._redis)

    def apply(self, changes: Sequence[ItemChange]) -> None:
        """In order, in one step; a repeat changes nothing."""

        def fold(known: dict[str, ItemState]) -> dict[str, ItemState]:
            new: dict[str, ItemState] = {}
            for change in changes:
                old = new.get(change.item_id) or known.get(change.item_id)
                new[change.item_id] = after(old, change)
            return new

        self._write([change.item_id for change in changes], fold)

    def offer(self, states: Sequence[ItemState]) -> None:
        """What a machine knew before they met: items that are not here come in, and what either has withheld is
        withheld: nobody can say whose word is the newer one.
        """

        def merge(known: dict[str, ItemState]) -> dict[str, ItemState]:
            new = {}
            for state in states:
                theirs = known.get(state.item_id)
                mine = msgspec.structs.replace(state, ordinal=0)
                if theirs is None:
                    new[state.item_id] = mine
                elif mine.withheld:
                    flagged = True if mine.flagged else theirs.flagged
                    new[state.item_id] = msgspec.structs.replace(
                        theirs, removed=theirs.removed or mine.removed, flagged=flagged
                    )
            return new

        self._write([state.item_id for state in states], merge)

    def news(self, position: Position) -> tuple[Position, list[ItemState]]:
        """What is newer, and the position after it. A state may be newer still: it comes again."""
        with self._reaching():
            head = self._position(self._redis)
            since = position.version if position.identity == head.identity else 0
            ids = self._redis.zrangebyscore(self._at, f"({since}", head.version)
            found = self._redis.hmget(self._items, ids) if ids else []
        return head, [_decode(blob) for blob in found if blob is not None]

    def close(self) -> None:
        self._redis.close()

    def _write(self, item_ids: Sequence[str], make: Callable[[dict[str, ItemState]], dict[str, ItemState]]) -> None:
        with self._reaching():
            for _ in range(TRIES):
                with self._redis.pipeline(transaction=True) as pipe:
                    pipe.watch(self._head)
                    head = self._position(pipe)
                    blobs = pipe.hmget(self._items, item_ids) if item_ids else []
                    known = {i: _decode(blob) for i, blob in zip(item_ids, blobs, strict=True) if blob is not None}
                    changed = {i: state for i, state in make(known).items() if state != known.get(i)}
                    if not changed and head.identity:
                        return
                    pipe.multi()
                    identity, version = head.identity or secrets.token_hex(8), head.version + 1
                    pipe.hset(self._head, mapping={"identity": identity, "version": version})
                    if changed:
                        pipe.hset(self._items, mapping={i: _encode(state) for i, state in changed.items()})
                        pipe.zadd(self._at, dict.fromkeys(changed, version))
                    try:
                        pipe.execute()
                    except WatchError:
                        continue
                    return
        raise Unreachable("the shared catalogue was written by others all the time")

    def _position(self, client: Any) -> Position:
        identity, version = client.hmget(self._head, ["identity", "version"])
        return Position(identity.decode(), int(version)) if identity and version else Position()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, ValueError, TypeError) as error:
            raise Unreachable(
                f"the shared catalogue in {without_secrets(self._url)} does not answer: {error}",
                next_command="docs/runbooks/online-store-down.md",
            ) from error
