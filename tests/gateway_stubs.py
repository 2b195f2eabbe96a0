"""A Bento that does as it is told, for the gateway's tests: `python -m tests.gateway_stubs unix:/PATH|PORT STATE.json`.

STATE.json is read on every request: {"mode": "ok" | "fail" | "hang" | "slow" | "broken" | "empty" | "reset" | "nan" |
"twice", "ms": 0, "name": "…"}. It uses no CPU to speak of.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import msgspec

ITEMS = 100


class Stub(asyncio.Protocol):
    state: Path

    def connection_made(self, transport):
        self.transport = transport
        self.data = b""
        self.busy = False

    def data_received(self, data):
        self.data += data
        self._next()

    def _next(self):
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found or self.busy:
            return
        lines = head.split(b"\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines[1:])}
        length = int(headers.get(b"content-length", b"0"))
        if len(rest) < length:
            return
        self.data = rest[length:]
        self.busy = True
        asyncio.get_running_loop().create_task(self._answer(lines[0].split()[1], headers, rest[:length]))

    async def _answer(self, path, headers, body):
        told = json.loads(self.state.read_text())
        mode = told.get("mode", "ok")
        if path == b"/readyz":
            self._send(200 if told.get("ready", True) else 503, b'{"status":"ready"}')
            return
        rung = headers.get(b"x-streamrec-rung") == b"popularity"
        shadow = b"x-streamrec-shadow" in headers
        if not (rung and told.get("spare_popularity", True)):
            with self.state.with_suffix(".seen").open("a") as seen:
                seen.write("s" if shadow else ".")
            if mode == "hang":
                return
            if mode == "slow":
                await asyncio.sleep(told["ms"] / 1000)
            if mode == "reset":
                self.transport.abort()
                return
            if mode == "crash":
                os._exit(9)
            if mode == "fail":
                self._send(500, b"{}")
                return
            if mode == "broken":
                self._send(200, b'{"request_id": 7}')
                return
        self._send(200, slate(told.get("name", "stub"), headers, body, mode, rung))

    def _send(self, status, body):
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.busy = False
        self._next()


def slate(name, headers, body, mode, rung):
    request = json.loads(body)
    excluded = set(request.get("exclude", ()))
    prefix = "p" if rung else name[0]
    ids = [i for i in (f"{prefix}{n}" for n in range(ITEMS)) if i not in excluded][: request.get("k", 20)]
    if mode == "empty" and not rung:
        ids = []
    if mode == "twice" and len(ids) > 1:
        ids[1] = ids[0]
    items = [
        {"item_id": item, "score": 1.0 - n / 1000, "position": n + 1, "sources": ["trending"]}
        for n, item in enumerate(ids)
    ]
    answer = {
        "request_id": headers.get(b"x-request-id", b"own").decode(),
        "user_id": request["user_id"],
        "items": items,
        "degradation": "popularity" if rung else "full",
        "ranked_by": "popularity" if rung else "dcn",
        "bento": name,
        "variant": "champion",
        "debug": {
            "overrides": headers.get(b"x-streamrec-overrides", b"").decode(),
            "deadline_ms": headers.get(b"x-streamrec-deadline-ms", b"").decode(),
            "traceparent": headers.get(b"traceparent", b"").decode(),
            "authorization": headers.get(b"authorization", b"").decode(),
        }
        if request.get("debug")
        else None,
        "versions": {"bento": name, "retrieval": "r/1", "ranking": "k/1", "fallback": "f/1", "rules": "rules@1"},
        "front": {"clock_us": 5, "panel": ["new_user"] if request["user_id"].startswith("new") else []},
    }
    text = msgspec.json.encode(answer)
    if mode == "nan" and items:
        text = text.replace(b'"score":1.0', b'"score":1e999', 1)
    return text


async def main(where, state):
    Stub.state = Path(state)
    loop = asyncio.get_running_loop()
    if where.startswith("unix:"):
        path = where.removeprefix("unix:")
        Path(path).unlink(missing_ok=True)
        server = await loop.create_unix_server(Stub, path, backlog=1024)
    else:
        server = await loop.create_server(Stub, "127.0.0.1", int(where), backlog=1024)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(*sys.argv[1:]))
