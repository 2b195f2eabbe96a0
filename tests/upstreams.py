"""A Bento's HTTP face for tests of whoever calls it: `/readyz` and recommendations, over TCP or a Unix socket."""

import contextlib
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Upstream:
    """items: what it answers with. delay_s: before every answer. calls: (path, headers, body) so far."""

    bento: str
    status: str = "ready"
    items: list[dict[str, Any]] | None = None
    delay_s: float = 0.0
    raw: bytes | None = None
    url: str = ""
    calls: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def slate(self, k: int) -> list[dict[str, Any]]:
        if self.items is not None:
            return self.items
        return [
            {"item_id": f"i{n}", "score": 1 / (n + 1), "position": n + 1, "sources": ["trending"]}
            for n in range(min(k, 5))
        ]


@contextmanager
def serve(upstream: Upstream, socket: Path | None = None) -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(
                200 if upstream.status != "unavailable" else 503, {"status": upstream.status, "bento": upstream.bento}
            )

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            upstream.calls.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            answer = {
                "request_id": self.headers.get("x-request-id", ""),
                "user_id": body["user_id"],
                "items": upstream.slate(body["k"]),
                "degradation": "full",
                "ranked_by": "dcn",
                "bento": upstream.bento,
            }
            self._answer(200, answer)

        def address_string(self) -> str:
            return "test"

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            time.sleep(upstream.delay_s)  # it plays a slow Bento
            body = upstream.raw if upstream.raw is not None else json.dumps(document).encode()
            with contextlib.suppress(ConnectionError):  # the caller did not wait
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

    class UnixServer(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    server: socketserver.BaseServer
    if socket is not None:
        server = UnixServer(str(socket), Handler)
        upstream.url = f"unix:{socket}"
    else:
        tcp = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tcp.daemon_threads = True
        server = tcp
        upstream.url = f"http://127.0.0.1:{tcp.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        if socket is not None:
            socket.unlink(missing_ok=True)
