"""Who may do what: tokens with roles, enforced by one function for the command line and for HTTP.

While no token exists, whoever may open the database file is admin (`local:USER`): on SQLite the real boundary is file
permission, and stays it. Once one exists, every state-changing call needs one. When the last one is revoked, which is
an admin's, the local user is admin again.
"""

import getpass
import hashlib
import hmac
import secrets

from contracts.errors import NotFound, Refused, UsageError
from registry.control.store import Actor, ControlStore, Role, TokenRecord

ROLES: tuple[Role, ...] = ("viewer", "releaser", "admin")
PREFIX = "srt_"


class Forbidden(Refused):
    """No token, an unknown one, or one without the right. HTTP: 401 and 403."""


def authorise(store: ControlStore, token: str | None, needs: Role, *, action: str, subject: str, now_us: int) -> Actor:
    """The actor behind `token`, if it may. A refusal is audited.

    Raises:
        Forbidden: it may not.
        Unreachable: the control database does not answer.
    """
    living = [t for t in store.tokens() if t.revoked_us is None]
    if not living:
        return local_actor()
    if not token:
        raise _refused(
            store, Actor("nobody", "viewer"), "a token is needed", needs, action, subject, now_us,
        )  # fmt: skip
    digest = _digest(token)
    found = [t for t in living if hmac.compare_digest(t.sha256, digest)]
    if not found:
        raise _refused(
            store, Actor("unknown", "viewer"), "the token is unknown or was revoked", needs, action, subject, now_us
        )
    record = found[0]
    actor = Actor(f"token:{record.name}", record.role)
    if ROLES.index(record.role) < ROLES.index(needs):
        raise _refused(store, actor, f"{record.name} is a {record.role}", needs, action, subject, now_us)
    return actor


def local_actor() -> Actor:
    """The user of the operating system, while no token exists."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        name = "unknown"
    return Actor(f"local:{name}", "admin")


def create_token(store: ControlStore, actor: Actor, name: str, role: Role, now_us: int) -> str:
    """A new token, which is shown this once.

    Raises:
        UsageError: no such role, or no name. Refused: the first one is not an admin's. Conflict: the name is taken.
    """
    if role not in ROLES:
        raise UsageError(f"no role {role!r}; one of {', '.join(ROLES)}")
    if not name or len(name) > 64 or not name.isprintable():
        raise UsageError("a token has a name of 1 to 64 characters")
    token = PREFIX + secrets.token_urlsafe(32)
    store.save_token(TokenRecord(name, role, _digest(token), now_us, actor.name), actor, now_us)
    return token


def revoke_token(store: ControlStore, actor: Actor, name: str, now_us: int) -> TokenRecord:
    """
    Raises:
        NotFound: no such token. Refused: it is the last admin's, while others hold.
    """
    living = {t.name: t for t in store.tokens() if t.revoked_us is None}
    record = living.get(name)
    if record is None:
        raise NotFound(f"there is no token {name}", next_command="streamrec access list")
    revoked = TokenRecord(record.name, record.role, record.sha256, record.created_us, record.created_by, now_us)
    store.save_token(revoked, actor, now_us)
    return revoked


def _digest(token: str) -> str:
    """A plain digest: the token has 256 random bits, so that a slow hash would add nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()  # an environment may hold odd bytes


def _refused(
    store: ControlStore, actor: Actor, why: str, needs: Role, action: str, subject: str, now_us: int
) -> Forbidden:
    store.note(actor, "refused", subject, {"action": action, "reason": why, "needs": needs}, now_us)
    return Forbidden(f"{action} needs the role {needs}: {why}", next_command="STREAMREC_OPERATOR_TOKEN=… or --token")
