"""`python -m cli.watch`: the process of the watch. `streamrec up` starts one; two may run, one leads.

Settings come from `streamrec.toml` and `STREAMREC_*`. SIGTERM ends it between two rounds: checks and a training under
way end with it, and the lease is given back.
"""

import logging
import os
import secrets
import socket
import sys
import threading
import time
from functools import cache
from pathlib import Path

from prometheus_client import start_http_server

from cli.controller import clock_us
from cli.supervised import supervised
from contracts.errors import StreamRecError, UsageError
from contracts.settings import Settings
from monitoring.alerts.channels.base import Channel
from monitoring.alerts.channels.log import LogChannel
from monitoring.watch.metrics import WatchMetrics
from monitoring.watch.running import Subprocesses
from monitoring.watch.schema import Schema, schema_of
from monitoring.watch.watch import Live, Tick, Watch
from registry.bento_store import stored_bento
from registry.control.documents import SqlDocuments
from registry.control.sql import SqlStore, control_store, exists
from registry.lineage import pinned_uris

log = logging.getLogger("streamrec.watch")

TICK_S = 1.0
AGAIN_S = 5.0
LOW_PRIORITY = 10


def channels_of(settings: Settings) -> list[Channel]:
    """
    Raises:
        UsageError: a webhook without a secret to sign with.
    """
    found: list[Channel] = [LogChannel(settings.home)]
    if settings.alert_webhook:
        if not settings.alert_secret:
            raise UsageError("`alert_webhook` needs `alert_secret`: a receiver must know whose alert it is")
        from monitoring.alerts.channels.webhook import WebhookChannel

        found.append(WebhookChannel(settings.alert_webhook, settings.alert_secret))
    return found


def live_of(store: SqlStore, settings: Settings) -> Live:
    """
    Raises:
        Unreachable: the control database does not answer.
    """
    state = store.load()
    release = state.release
    if state.champion is None:
        return Live()
    under_way = release.id if release and release.active else ""
    candidate = [release.candidate.bento] if release and release.active else []
    bentos = tuple(dict.fromkeys([state.champion.bento, *candidate]))
    named = {bento: name for bento in bentos if (name := ranker_of(bento, settings.home))}
    return Live(bentos, under_way, named)


@cache
def ranker_of(bento: str, home: Path) -> str:
    """`streamrec-ranking/7`; "" of a Bento that was built elsewhere. A tag never gets other models."""
    try:
        return pinned_uris(stored_bento(bento, home))["ranking"].removeprefix("models:/")
    except StreamRecError:
        return ""


class Schemas:
    """Read anew each round; one that was broken by an edit is told, and the last good one holds."""

    def __init__(self, settings: Settings) -> None:
        self._home = settings.home
        self._good: dict[str, Schema] = {}
        self._said = ""

    def __call__(self, bento: str) -> Schema:
        name = bento.partition(":")[0]
        try:
            self._good[name] = schema_of(self._home, bento)
            self._said = ""
        except StreamRecError as error:
            if name not in self._good:
                raise
            if error.message != self._said:
                log.warning("the last good schema holds: %s", error.message)
            self._said = error.message
        return self._good[name]


def run(settings: Settings, stop: threading.Event) -> None:
    store = control_store(settings)
    while not exists(settings) and not stop.wait(AGAIN_S / 5):
        pass  # the controller makes the database
    schemas = Schemas(settings)
    watch = Watch(
        SqlDocuments(store),
        lambda: live_of(store, settings),
        schemas,
        Subprocesses(settings.home.resolve() / "watch", settings.home.resolve() / "log" / "watch-checks.log"),
        channels_of(settings),
        clock_us=clock_us,
        holder=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
        retrain=settings.retrain,
    )
    metrics = WatchMetrics()
    _serve(metrics, settings.watch_port)
    try:
        while not stop.is_set():
            began = time.monotonic()
            tick = watch.tick()
            metrics.show(tick, _schema(schemas, tick), clock_us())
            stop.wait(max(0.05, TICK_S - (time.monotonic() - began)))
    finally:
        watch.stop()


def _schema(schemas: Schemas, tick: Tick) -> Schema | None:
    return schemas("") if tick.state is not None else None


def _serve(metrics: WatchMetrics, port: int) -> None:
    """Where the port is taken, by the watch that leads, this one is silent."""
    try:
        server, _ = start_http_server(port, "127.0.0.1", metrics.registry)
    except OSError as error:
        log.warning("no /metrics on port %d: %s", port, error.strerror)
        return
    log.info("metrics on http://127.0.0.1:%d/metrics", server.server_port)


def main() -> int:
    os.nice(LOW_PRIORITY)  # it runs beside processes that answer requests
    return supervised(run, log, lambda settings: f"watch of {settings.home.resolve()}")


if __name__ == "__main__":
    sys.exit(main())
