"""Which tokens may stand beside one another, as a pure function: both stores ask it inside their transaction."""

from collections.abc import Sequence

from contracts.errors import Refused
from registry.control.store import Conflict, TokenRecord


def demand_an_admin(held: Sequence[TokenRecord], record: TokenRecord) -> None:
    """May `record` (a new token, or one that is revoked) be saved beside `held`?

    While any token holds, one of them is an admin's, else nobody could administer any more. After the last one is
    revoked, the local user is admin again.

    Raises:
        Conflict: a token of this name holds. Refused: no admin would be left, or the first one is not an admin's.
    """
    living = {t.name: t for t in held if t.revoked_us is None}
    if record.revoked_us is None:
        if record.name in living:
            raise Conflict(f"there is a token {record.name} already", next_command="streamrec access list")
        if record.role != "admin" and not living:
            raise Refused(
                "the first token is an admin's: with another one nobody could administer any more",
                next_command="streamrec access create NAME --role admin",
            )
        return
    left = [t for t in living.values() if t.name != record.name]
    if left and not any(t.role == "admin" for t in left):
        raise Refused(f"{record.name} is the last admin: revoke the others first, or make another admin")
