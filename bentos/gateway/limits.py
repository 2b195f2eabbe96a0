"""Who may call, and how often: consumer keys and token buckets. Bounded by the consumers that the table names."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bentos.recommender.http import HttpProblem
from contracts.routing import Consumer, RoutingTable


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Limits:
    """Of one process: each of `gateway_processes` gives its share of a consumer's rate."""

    def __init__(self) -> None:
        self._consumers: dict[str, Consumer] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._processes = 1

    def apply(self, consumers: Sequence[Consumer], processes: int) -> None:
        """Take over a new table. Who stays keeps what is left of its bucket."""
        self._consumers = {c.key_sha256: c for c in consumers}
        self._processes = processes
        names = {c.name for c in consumers}
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in names}

    def apply_table(self, table: RoutingTable) -> None:
        self.apply(table.consumers, table.gateway_processes)

    def admit(self, authorization: bytes | None, now: float) -> str:
        """The consumer's name; "" where no key is asked for.

        Args:
            authorization: the header; `Bearer KEY`.
            now: monotonic seconds.

        Raises:
            HttpProblem: 401 without a key, 403 with a wrong one, 429 over the rate.
        """
        if not self._consumers:
            return ""
        if authorization is None or not authorization[:7].lower() == b"bearer ":
            raise HttpProblem(401, "send `Authorization: Bearer KEY`", headers=[(b"www-authenticate", b"Bearer")])
        # A key has 256 random bits: what the time of looking its hash up might tell is of no use.
        consumer = self._consumers.get(hashlib.sha256(authorization[7:].strip()).hexdigest())
        if consumer is None:
            raise HttpProblem(403, "this is not a key of a consumer")
        wait_s = self._take(consumer, now)
        if wait_s > 0:
            raise HttpProblem(
                429,
                f"consumer {consumer.name} may call {consumer.rate_per_s:g} times a second",
                headers=[(b"retry-after", str(max(1, math.ceil(wait_s))).encode())],
            )
        return consumer.name

    def _take(self, consumer: Consumer, now: float) -> float:
        """0 with one token less, or the seconds until there is one."""
        if consumer.rate_per_s is None:
            return 0.0
        rate = consumer.rate_per_s / self._processes
        most = max(1.0, consumer.burst / self._processes)
        bucket = self._buckets.get(consumer.name)
        if bucket is None:
            bucket = self._buckets[consumer.name] = _Bucket(most, now)
        bucket.tokens = min(most, bucket.tokens + max(0.0, now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        return (1 - bucket.tokens) / rate
