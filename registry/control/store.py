"""The control database as the controller and the commands see it. `sql.py` is the real one, `memory.py` its fake."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from contracts.errors import StreamRecError
from registry.releases.values import ControlState, Release

Role = Literal["viewer", "releaser", "admin"]


class Conflict(StreamRecError):
    """The state or the lease has moved on since it was read: read again and decide again."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. `local`: no token exists yet, and the right to read the database file is the boundary."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Lease:
    """epoch grows with each new holder: a fencing token."""

    holder: str
    epoch: int
    until_us: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An audit entry. digest: SHA-256 over previous digest and content, so that no entry can be changed or left out."""

    number: int
    at_us: int
    actor: str
    action: str  # `release.start`, `release.rollback`, `token.create`, `refused`, …
    subject: str  # release, experiment, token
    detail: dict[str, Any]  # command, reason, verdicts, policy hash, evidence snapshot
    previous: str
    digest: str


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """sha256: of the token; it has 256 random bits, so that a plain digest is as good as a slow one."""

    name: str
    role: Role
    sha256: str
    created_us: int
    created_by: str
    revoked_us: int | None = None


class ControlStore(Protocol):
    def load(self) -> ControlState:
        """
        Raises:
            Unreachable: the database does not answer or cannot be read.
        """

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
        """Put `after` in place of `before` and write the audit entry, in one transaction. A release that is in `after`
        is stored under its id too (history). Returns `after` with its new version.

        Raises:
            Conflict: `before.version` is not the newest, or `lease` is not the current one.
            Unreachable: the database does not answer.
        """

    def releases(self, limit: int = 100) -> list[Release]:
        """Newest first, ended ones included."""

    def acquire(self, holder: str, ttl_s: float, now_us: int) -> Lease | None:
        """Take or renew the controller's lease. None while another holds it. A new holder gets a greater epoch; a
        clock that jumped back does not extend another's lease past `ttl_s` from now."""

    def release_lease(self, lease: Lease) -> None: ...

    def note(self, actor: Actor, action: str, subject: str, detail: dict[str, Any], now_us: int) -> Entry:
        """An audit entry of its own: a refused command, an evidence snapshot."""

    def history(self, subject: str | None = None, limit: int = 1000) -> list[Entry]:
        """Oldest first."""

    def verify(self) -> Sequence[str]:
        """What is wrong with the chain of audit entries; empty when it is whole."""

    def tokens(self) -> list[TokenRecord]:
        """All that were ever made, revoked ones included, oldest first."""

    def save_token(self, record: TokenRecord, actor: Actor, now_us: int) -> None:
        """A new token, or the same name with another state (revoked). Audited, without its digest.

        Raises:
            Conflict: a token of this name holds already.
        """
