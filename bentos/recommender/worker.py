"""One serving process: `python -m bentos.recommender.worker --bento DIR --fd 3`.

What it does that a stock BentoML worker does not: `/readyz` goes false before the listening ends, requests under way
are finished, half-open connections are closed, and it ends with its parent.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from contracts.parent import end_with_parent

KEEP_ALIVE_S = 75
GRACEFUL_S = 10
SERVICE = "bentos.recommender.service:Recommender"

log = logging.getLogger("streamrec.serving")


class BoundedProtocol(HttpToolsProtocol):
    """A connection that has sent no whole request header after `headers_s` is closed."""

    headers_s = 10.0
    _headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._headers_due = self.loop.call_later(self.headers_s, transport.close)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None


class Server(uvicorn.Server):
    """First signal: `/readyz` false, then after `drain_s` the listening ends and what is under way is finished."""

    def __init__(self, config: uvicorn.Config, service: Any, drain_s: float) -> None:
        super().__init__(config)
        self._service = service
        self._drain_s = drain_s
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining:
            super().handle_exit(sig, frame)  # a second signal hurries
            return
        self._draining = True
        runtime = getattr(self._service, "runtime", None)
        if runtime is None or self._drain_s <= 0:
            super().handle_exit(sig, frame)
            return
        runtime.drain()
        log.info("draining for %.1f s, then finishing what is under way", self._drain_s)
        asyncio.get_running_loop().call_later(self._drain_s, super().handle_exit, sig, frame)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bentos.recommender.worker", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--bento", type=Path, help="folder of a built Bento")
    what.add_argument("--bundles", type=Path, help="folder with retrieval/, ranking/ and fallback/; code from here")
    what.add_argument("--entry", default="", metavar="MODULE:NAME", help="a service of the code from here")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="a listening socket that was inherited")
    where.add_argument("--port", type=int, help="listen on 127.0.0.1")
    where.add_argument("--uds", type=Path, help="listen on this Unix socket, in a folder that is the owner's alone")
    parser.add_argument("--service", default="", help="one of the runners, in place of the entry")
    parser.add_argument("--runners", default="", help='JSON: {"Ranking": "file:///…/x.sock"}')
    parser.add_argument("--parent", type=int, default=0, help="pid to end with")
    parser.add_argument(
        "--drain-s", type=float, default=1.0, help="how long /readyz is false before the listening ends"
    )
    parser.add_argument("--headers-s", type=float, default=BoundedProtocol.headers_s, help="time a connection may take")
    return parser.parse_args()


def _load(bento: Path | None, entry: str, name: str, runners: dict[str, str]) -> Any:
    """The BentoML service, its context filled as a stock worker fills it."""
    from _bentoml_impl.loader import load
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.context import server_context

    if runners:
        BentoMLContainer.remote_runner_mapping.set(runners)
    service = load(str(bento) if bento else entry or SERVICE, standalone_load=True)
    if name and name != service.name:
        service = service.find_dependent_by_name(name)
    server_context.service_type = "service" if name else "entry_service"
    server_context.service_name = service.name
    server_context.bento_name = service.bento.tag.name if service.bento else service.name
    server_context.bento_version = (service.bento.tag.version or "") if service.bento else "not available"
    return service


def unix_listener(path: Path) -> socket.socket:
    """Bound beside its place and renamed into it: a restarted worker takes the place of a dead one in one step, and
    nobody else may connect (0600).
    """
    part = path.with_name(f".{os.getpid()}")  # such a path may have 107 bytes
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    part.unlink(missing_ok=True)
    listener.bind(str(part))
    part.chmod(0o600)
    listener.listen(2048)
    part.rename(path)
    return listener


def main() -> None:
    arguments = _arguments()
    if arguments.parent:
        end_with_parent(arguments.parent)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for noisy in ("uvicorn", "faiss.loader", "bentoml.serve"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if arguments.bundles:
        os.environ["STREAMREC_BUNDLES"] = str(arguments.bundles.resolve())
    service = _load(arguments.bento, arguments.entry, arguments.service, json.loads(arguments.runners or "{}"))
    app = service.to_asgi(is_main=not arguments.service)
    BoundedProtocol.headers_s = arguments.headers_s
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=arguments.port or 0,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_S,
    )
    gc.collect()
    gc.freeze()  # the models and the framework will not become garbage: do not walk them again and again
    server = Server(config, service, arguments.drain_s)
    listener = socket.socket(fileno=arguments.fd) if arguments.fd is not None else None
    if arguments.uds is not None:
        listener = unix_listener(arguments.uds)
    server.run(sockets=[listener] if listener else None)
    if not server.started:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
