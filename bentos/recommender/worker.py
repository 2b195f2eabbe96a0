"""One serving process: `python -m bentos.recommender.worker --bento DIR --fd 3`.

What it does that a stock BentoML worker does not: `/readyz` goes false before the listening ends, no request that was
accepted is lost, connections are bounded (connections.py), and it ends with its parent.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from bentos.recommender import logs
from bentos.recommender.connection_metrics import ConnectionMetrics
from bentos.recommender.connections import KEEP_ALIVE_S, LINGER_S, BoundedProtocol, Bounds, Connections
from bentos.recommender.nursery import NOT_STARTED, Nursery
from contracts import tracking
from contracts.memory import give_back_free_memory, give_back_large_blocks
from contracts.parent import end_with_parent
from contracts.settings import load_settings

GRACEFUL_S = 10
CLOSE_S = 5  # for what comes after the last request, before a worker is killed
ACCEPT_S = 1.0
# Of one listening socket libuv accepts a single connection each time round the loop. Under load a round takes
# milliseconds, and new connections would wait at the door for seconds, where no admission sees them. A door more costs
# each new connection a system call that finds nobody.
DOORS = 32
RUNNER_BODY_BYTES = 64 << 20
SPARE_FILES = 256  # logs, stores, models: what a worker opens besides connections
SERVICE = "bentos.recommender.service:Recommender"

log = logging.getLogger("streamrec.serving")


class Server(uvicorn.Server):
    """Ends without losing a request that it has accepted.

    First signal: `/readyz` false, every answer says `connection: close`. After `drain_s` the connections that wait to
    be accepted are, and the listening ends. For as long again, at most `LINGER_S`, connections kept alive may still
    bring a request, so that a client which is about to send one has been told; then they are closed, and what is under
    way is finished.
    """

    def __init__(self, config: uvicorn.Config, service: Any, table: Connections, drain_s: float) -> None:
        super().__init__(config)
        self._service = service
        self._table = table
        self._drain_s = drain_s
        self._draining = False
        self._metrics: ConnectionMetrics | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining:
            super().handle_exit(sig, frame)  # a second signal hurries
            return
        self._draining = True
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(self._drain)
        if self._drain_s > 0:
            loop.call_later(self._drain_s, super().handle_exit, sig, frame)
        else:
            super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # the models will not become garbage: do not walk them again and again
        give_back_free_memory()
        runtime = getattr(self._service, "runtime", None)
        if runtime is not None:
            self._metrics = ConnectionMetrics(runtime.metrics.registry)

    async def on_tick(self, counter: int) -> bool:
        if self._metrics is not None and counter % 10 == 0:  # once a second
            self._metrics.tell(self._table)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._stop_listening()
        until = time.monotonic() + min(self._drain_s, LINGER_S)
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def _drain(self) -> None:
        runtime = getattr(self._service, "runtime", None)
        if runtime is not None:
            runtime.drain()
        self._table.draining = True
        for connection in self.server_state.connections:
            if isinstance(connection, BoundedProtocol):
                connection.drain()
        log.info("draining for %.1f s, then finishing what is under way", self._drain_s)

    async def _stop_listening(self) -> None:
        """Who has connected is served; who has not is refused. To close a listening socket with connections in its
        queue would reset them.
        """
        doors = [listener.fileno() for server in self.servers for listener in server.sockets]
        listening = {os.fstat(door).st_ino: door for door in doors}  # several doors lead to one queue
        closing = [socket.socket(fileno=os.dup(listener)) for listener in listening.values()]
        for server in self.servers:
            server.close()
        for listener in closing:
            listener.setblocking(False)
            listener.listen(0)
            until = time.monotonic() + ACCEPT_S
            while time.monotonic() < until:
                await self._accept_waiting(listener)
                if listener.family == socket.AF_UNIX or _fill(listener):
                    break
            listener.close()

    async def _accept_waiting(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = listener.accept()
                await loop.connect_accepted_socket(self._protocol, accepted)

    def _protocol(self) -> asyncio.Protocol:
        return BoundedProtocol(self.config, self.server_state, self.lifespan.state, asyncio.get_running_loop())


def _fill(listener: socket.socket) -> bool:
    """Take the only place that a queue of length 0 still has (Linux), with a connection of our own: then no client can
    be in it when it is closed. False: a client was there first.
    """
    ours = socket.socket(listener.family, socket.SOCK_STREAM)
    ours.setblocking(False)
    try:
        ours.connect_ex(listener.getsockname())
        ours.getpeername()  # it is connected at once or, where the queue is full, not at all
    except OSError:
        return False
    finally:
        ours.close()
    return True


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
    parser.add_argument("--workers", type=int, default=1, help="so many, forked when everything is imported")
    parser.add_argument("--parent", type=int, default=0, help="pid to end with")
    parser.add_argument(
        "--drain-s", type=float, default=1.0, help="how long /readyz is false before the listening ends"
    )
    parser.add_argument("--headers-s", type=float, default=Bounds.headers_s, help="time for a request's header")
    parser.add_argument(
        "--body-s", type=float, default=Bounds.body_s, help="for its body, and for the client to take its answer"
    )
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


def doors(listener: socket.socket) -> list[socket.socket]:
    """`DOORS` ways to one queue. All processes that inherited the listener share whether it blocks, and `dup` hands on
    what Python holds of it: a worker that starts must not make the accepting of those that serve block.
    """
    listener.setblocking(False)
    return [listener, *(listener.dup() for _ in range(DOORS - 1))]


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


def _bounds(arguments: argparse.Namespace) -> Bounds:
    """Within what the system lets this process open."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        files = most
    wanted = load_settings().max_connections
    connections = max(min(wanted, files - SPARE_FILES), 1)
    if connections < wanted:
        log.warning("%d connections, not %d: this process may open %d files", connections, wanted, files)
    bounds = Bounds(connections, headers_s=arguments.headers_s, body_s=arguments.body_s, write_s=arguments.body_s)
    if arguments.service:  # rows of a whole batch, from a process of ours
        return replace(bounds, body_bytes=RUNNER_BODY_BYTES, bodies_bytes=16 * RUNNER_BODY_BYTES)
    return bounds


def main() -> None:
    arguments = _arguments()
    tracking.off()
    if arguments.parent:
        end_with_parent(arguments.parent)
    give_back_large_blocks()
    settings = load_settings()
    logs.configure(settings.log_format, (settings.token, settings.front_key, settings.operator_token))
    if arguments.bundles:
        os.environ["STREAMREC_BUNDLES"] = str(arguments.bundles.resolve())
    service = _load(arguments.bento, arguments.entry, arguments.service, json.loads(arguments.runners or "{}"))
    app = service.to_asgi(is_main=not arguments.service)
    BoundedProtocol.table = table = Connections(_bounds(arguments))
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
        proxy_headers=False,  # nothing here asks who the client is
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_S,
    )
    gc.collect()
    gc.freeze()  # nor will the framework
    listener = socket.socket(fileno=arguments.fd) if arguments.fd is not None else None
    if arguments.uds is not None:
        listener = unix_listener(arguments.uds)

    def serve() -> None:
        server = Server(config, service, table, arguments.drain_s)
        server.run(sockets=doors(listener) if listener else None)
        if not server.started:
            raise SystemExit(NOT_STARTED)

    if arguments.workers > 1:
        Nursery(arguments.workers, serve, arguments.drain_s + GRACEFUL_S + CLOSE_S).run()
    else:
        serve()


if __name__ == "__main__":
    main()
