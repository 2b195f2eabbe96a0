"""The control store in memory: for tests and simulations. Values are frozen, so nothing is copied."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from registry.control import audit
from registry.control.leasing import granted
from registry.control.store import Actor, Conflict, Entry, Lease, TokenRecord
from registry.control.tokens import demand_an_admin
from registry.releases.values import ControlState, Release


class MemoryStore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = ControlState()
        self._releases: dict[str, Release] = {}
        self._lease: Lease | None = None
        self._entries: list[tuple[Entry, str]] = []
        self._tokens: dict[str, TokenRecord] = {}

    def load(self) -> ControlState:
        return self._state

    def commit(
        self,
        before: ControlState,
        after: ControlState,
        *,
        actor: Actor,
        action: str,
        subject: str,
        detail: dict[str, Any],
        now_us: int,
        lease: Lease | None = None,
    ) -> ControlState:
        with self._lock:
            if before.version != self._state.version:
                raise Conflict(f"the state has moved from version {before.version} to {self._state.version}")
            held = self._lease
            if lease is not None and (held is None or (held.holder, held.epoch) != (lease.holder, lease.epoch)):
                raise Conflict("the lease has gone to another controller")
            self._state = after.model_copy(update={"version": before.version + 1})
            for release in (after.ended, after.release):
                if release is not None:
                    self._releases[release.id] = release
            self._note(actor, action, subject, detail, now_us)
            return self._state

    def releases(self, limit: int = 100) -> list[Release]:
        return sorted(self._releases.values(), key=lambda r: (r.created_us, r.id), reverse=True)[:limit]

    def acquire(self, holder: str, ttl_s: float, now_us: int) -> Lease | None:
        with self._lock:
            mine, self._lease = granted(self._lease, holder, ttl_s, now_us)
            return mine

    def release_lease(self, lease: Lease) -> None:
        with self._lock:
            if self._lease and (self._lease.holder, self._lease.epoch) == (lease.holder, lease.epoch):
                self._lease = replace(self._lease, until_us=0)

    def note(self, actor: Actor, action: str, subject: str, detail: dict[str, Any], now_us: int) -> Entry:
        with self._lock:
            return self._note(actor, action, subject, detail, now_us)

    def history(self, subject: str | None = None, limit: int = 1000) -> list[Entry]:
        found = [entry for entry, _ in self._entries if subject is None or entry.subject == subject]
        return found[-limit:]

    def verify(self) -> Sequence[str]:
        last = self._entries[-1][0] if self._entries else None
        return audit.problems(self._entries, (last.number, last.digest) if last else (0, audit.GENESIS))

    def tokens(self) -> list[TokenRecord]:
        return sorted(self._tokens.values(), key=lambda t: (t.created_us, t.name))

    def save_token(self, record: TokenRecord, actor: Actor, now_us: int) -> None:
        with self._lock:
            demand_an_admin(list(self._tokens.values()), record)
            self._tokens[record.name] = record
            action = "token.revoke" if record.revoked_us is not None else "token.create"
            self._note(actor, action, record.name, {"role": record.role}, now_us)

    def _note(self, actor: Actor, action: str, subject: str, detail: dict[str, Any], now_us: int) -> Entry:
        last = self._entries[-1][0] if self._entries else None
        entry, text = audit.entry(
            actor, action, subject, detail, now_us, (last.number, last.digest) if last else (0, audit.GENESIS)
        )
        self._entries.append((entry, text))
        return entry
