"""What the generators ask: every user of the reference world in an order without rhythm."""

import json

from contracts.front import DEADLINE_MS

STRIDE = 7919  # a prime: with any number of users that it does not divide, each comes once before one comes again
CONTEXT = {"device": "ios", "country": "DE"}
PATH = "/v1/recommendations"

LUA = """
n = OFFSET
request = function()
  n = n + 1
  local user = (n * STRIDE) % USERS
  local body = string.format([[{"user_id": "u%d", "k": 20, "context": {"device": "ios", "country": "DE"}}]], user)
  return wrk.format("POST", "PATH", {["content-type"] = "application/json"HEADER}, body)
end
"""


def body(n: int, users: int) -> bytes:
    """Of the n-th request."""
    return json.dumps({"user_id": f"u{(n * STRIDE) % users}", "k": 20, "context": CONTEXT}).encode()


def request(n: int, users: int, host: str = "127.0.0.1", deadline_ms: float | None = None) -> bytes:
    """The n-th, as it goes over the wire."""
    content = body(n, users)
    lines = [f"POST {PATH} HTTP/1.1", f"host: {host}", "content-type: application/json"]
    if deadline_ms is not None:
        lines.append(f"{DEADLINE_MS.decode()}: {deadline_ms:g}")
    return "\r\n".join((*lines, f"content-length: {len(content)}", "", "")).encode() + content


def lua(users: int, offset: int = 0, deadline_ms: float | None = None) -> str:
    """The same for wrk."""
    header = "" if deadline_ms is None else f', ["{DEADLINE_MS.decode()}"] = "{deadline_ms:g}"'
    return (
        LUA.replace("OFFSET", str(offset))
        .replace("STRIDE", str(STRIDE))
        .replace("USERS", str(users))
        .replace("PATH", PATH)
        .replace("HEADER", header)
    )
