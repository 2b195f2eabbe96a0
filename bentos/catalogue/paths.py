"""The addresses of the live catalogue. In an address an item id is percent-encoded, / too."""

from collections.abc import Mapping
from typing import Any

ITEMS = "/v1/items"
UNDER_ITEMS = "/v1/items/"
ITEM = "/v1/items/{item_id}"
FLAG = "/v1/items/{item_id}/flag"


def quoted(scope: Mapping[str, Any]) -> str:
    """What follows /v1/items/, as it was sent: in `path` a %2F within an id is not told from the end of one."""
    raw = scope.get("raw_path") or scope["path"].encode(errors="replace")
    return str(raw.decode("latin-1").partition("?")[0].removeprefix(UNDER_ITEMS))


def route_of(scope: Mapping[str, Any]) -> str:
    return FLAG if quoted(scope).endswith("/flag") else ITEM
