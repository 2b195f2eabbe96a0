"""`python -m cli.controller`: the process of the controller. `streamrec up` starts one; two may run, one leads.

Settings come from `streamrec.toml` and `STREAMREC_*`. SIGTERM ends it between two ticks and gives the lease back.
"""

import logging
import os
import secrets
import socket
import sys
import threading
import time
from typing import Any

import uvicorn

from cli.supervised import supervised
from contracts.errors import StreamRecError
from contracts.settings import Settings
from registry.background import Background
from registry.control.sql import control_store
from registry.control.store import ControlStore
from registry.control_api import control_app
from registry.controller import Controller, Evidence
from registry.drivers.base import Driver
from registry.drivers.static import StaticDriver
from registry.keys import front_key, routing_signer
from registry.readiness import Prober
from registry.reconcile import Reconciler
from registry.releases.routing import RoutingWriter
from registry.releases.status import write_report
from registry.rounds import Tick

log = logging.getLogger("streamrec.controller")

TICK_S = 0.25  # a command is in the routing table this long after its commit, at most
LATE_S = 10.0  # without a tick for so long, /readyz says so
AGAIN_S = 2.0  # between tries at a database or a port


def driver(settings: Settings) -> Driver:
    if settings.driver == "static":
        return StaticDriver(settings.upstreams)
    from registry.drivers.local import LocalDriver

    return LocalDriver(settings)


def evidence(settings: Settings) -> Evidence:
    """In a thread of its own. Imported here: DuckDB and SciPy take a second."""
    from monitoring.evidence.source import evidence_source

    return Background(evidence_source(settings))


class Heart:
    """What `/readyz` says: the last tick, and when it was."""

    def __init__(self) -> None:
        self._tick: Tick | None = None
        self._at = time.monotonic()

    def beat(self, tick: Tick) -> None:
        self._tick, self._at = tick, time.monotonic()

    def said(self) -> dict[str, Any]:
        tick = self._tick
        age_s = round(time.monotonic() - self._at, 3)
        away = tick is None or age_s > LATE_S or "control database" in tick.problems
        status = "unavailable" if away else "ready" if tick and tick.leading else "standby"
        return {"status": status, "age_s": age_s, "problems": tick.problems if tick else {}, "pid": os.getpid()}


class Api:
    """The HTTP interface, in a thread. Where its port is taken (by the controller that leads), it is tried again."""

    def __init__(self, store: ControlStore, settings: Settings, heart: Heart) -> None:
        self._store, self._settings, self._heart = store, settings, heart
        self._tried: float | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.url: str | None = None

    def open(self) -> None:
        if self._server is not None or (self._tried is not None and time.monotonic() - self._tried < AGAIN_S):
            return
        first, self._tried = self._tried is None, time.monotonic()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self._settings.control_port))
        except OSError as error:
            listener.close()
            if first:
                log.warning("no HTTP interface on port %d yet: %s", self._settings.control_port, error.strerror)
            return
        app = control_app(self._store, self._settings, clock_us=clock_us, ready=self._heart.said)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", limit_concurrency=32, timeout_keep_alive=5
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="http", daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        log.info("HTTP interface on %s", self.url)

    def close(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(5)


def clock_us() -> int:
    return time.time_ns() // 1000


def run(settings: Settings, stop: threading.Event) -> None:
    store = _store(settings, stop)
    if store is None:
        return
    heart = Heart()
    api = Api(store, settings, heart)
    prober = Prober(front_key(settings))
    reconciler = Reconciler()
    controller = Controller(
        store,
        driver(settings),
        prober,
        evidence(settings),
        RoutingWriter(settings.home, routing_signer(settings.home)),
        reconciler,
        clock_us=clock_us,
        holder=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        gateway_processes=settings.gateway_processes,
        report=lambda document: write_report(settings.home, {**document, "url": api.url}),
    )
    try:
        while not stop.is_set():
            began = time.monotonic()
            heart.beat(controller.tick())
            api.open()
            stop.wait(max(0.01, TICK_S - (time.monotonic() - began)))
    finally:
        api.close()
        controller.stop()
        prober.stop()
        reconciler.stop()


def _store(settings: Settings, stop: threading.Event) -> ControlStore | None:
    """Opened as soon as the database answers; None when told to stop before that."""
    said = ""
    while not stop.is_set():
        try:
            return control_store(settings)
        except StreamRecError as error:
            if error.message != said:
                log.warning("control database: %s", error.message)
            said = error.message
            stop.wait(AGAIN_S)
    return None


def main() -> int:
    return supervised(run, log, lambda settings: f"controller of {settings.home.resolve()}, driver {settings.driver}")


if __name__ == "__main__":
    sys.exit(main())
