"""Who is behind the id that a record has, where ids are hidden by key: of the users whom the Bento knows."""

import re
from collections.abc import Callable, Mapping

from contracts.user_keys import UserKeys
from monitoring.replay.rebuild import Rebuilder

HIDDEN = re.compile(r"[^.]+\.[a-z2-7]{26}")  # as `UserKey.hide` makes it


def who(keys: UserKeys | None) -> Callable[[str, Rebuilder], str | None]:
    """Of a logged id and a Bento: the user, by a pass over the users whom it knows. Whom no model knows stays hidden,
    as the name decides nothing then. None: hidden under a key that is not here."""
    known: dict[int, Mapping[str, str]] = {}

    def find(logged_id: str, rebuilder: Rebuilder) -> str | None:
        if not HIDDEN.fullmatch(logged_id):
            return logged_id
        if keys is None or logged_id.partition(".")[0] not in keys.ids:
            return logged_id if logged_id in rebuilder.users else None
        if id(rebuilder) not in known:
            known[id(rebuilder)] = keys.known(rebuilder.users)
        return known[id(rebuilder)].get(logged_id, logged_id)

    return find
