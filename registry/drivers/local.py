"""Bentos as processes of the stack that `streamrec up` runs: each worker on a Unix socket of its own."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts import tracking
from contracts.errors import NotFound, Refused
from contracts.routing import Upstream
from contracts.settings import Settings
from registry.bento_store import stored_bento
from registry.hiding import demand_hiding
from registry.keys import front_key
from registry.processes.plan import Process
from registry.processes.stack import MARK, Stack

PREFIX = "bento-"
AGAIN_S = 2.0  # between looks at what really runs, while nothing else is asked for
CRASH_LOOP = 3  # deaths within a minute


class LocalDriver:
    """
    Args:
        settings: `workers` of each Bento; the home's stack must run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = Stack(settings.home)
        self._ensured: tuple[str, ...] | None = None
        self._looked = 0.0
        self._missing: dict[str, str] = {}

    def ensure(self, bentos: Sequence[str]) -> None:
        """
        Raises:
            Unreachable: the supervisor does not answer.
        """
        wanted = tuple(bentos)
        if wanted == self._ensured and time.monotonic() - self._looked < AGAIN_S:
            return
        state = self._stack.state
        there = {name for name in state.processes if name.startswith(PREFIX)} if state else set()
        self._missing = {}
        processes = {p.name: p for tag in wanted for p in self._processes(tag)}
        for name, process in processes.items():
            if name not in there:
                self._stack.add(process)
        for name in there - set(processes):
            self._stack.remove(name)
        self._ensured, self._looked = wanted, time.monotonic()

    def upstreams(self) -> dict[str, Upstream]:
        found = {}
        for tag in self._ensured or ():
            if tag not in self._missing:
                sockets = self._stack.sockets
                urls = tuple(f"unix:{sockets / _socket(tag, n)}" for n in self._workers)
                found[tag] = Upstream(urls=urls)
        return found

    def problems(self) -> dict[str, str]:
        found = dict(self._missing)
        state = self._stack.state
        for tag in self._ensured or ():
            for n in self._workers:
                running = state.processes.get(_name(tag, n)) if state else None
                if running is not None and running.deaths >= CRASH_LOOP:
                    found[tag] = (
                        f"worker {n} ended {running.deaths} times within a minute, last with {running.last_exit}; "
                        f"see {self._log(tag, n)}"
                    )
        return found

    @property
    def _workers(self) -> range:
        return range(1, self._settings.workers + 1)

    def _processes(self, tag: str) -> list[Process]:
        try:
            bento = stored_bento(tag, self._settings.home)
            demand_hiding(bento, self._settings)
        except (NotFound, Refused) as error:
            self._missing[tag] = f"{error.message}; next: {error.next_command}"
            return []
        folder = bento.folder
        state = self._stack.state
        sockets = self._stack.sockets
        return [
            Process(
                name=_name(tag, n),
                argv=(
                    sys.executable,
                    *("-m", "bentos.recommender.worker"),
                    *("--bento", str(folder)),
                    *("--uds", str(sockets / _socket(tag, n))),
                    *("--parent", str(state.arbiter if state else os.getpid())),
                ),
                cwd=str(folder / "src"),
                log=str(self._log(tag, n)),
                env=environment(self._settings, self._stack.folder),
            )
            for n in self._workers
        ]

    def _log(self, tag: str, n: int) -> Path:
        return self._settings.home.resolve() / "log" / f"{_name(tag, n)}.log"


def environment(settings: Settings, mark: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """All that a serving process gets: its settings with absolute paths, as it runs in another folder."""
    home = settings.home.resolve()
    found = {
        # One compute thread a process: with two, BLAS and OpenMP wait for each other.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        **base,
        MARK: str(mark),
        "STREAMREC_HOME": str(home),
        "STREAMREC_FRONT_KEY": front_key(settings),
        "STREAMREC_TOPOLOGY": "colocated",
        "BENTOML_HOME": str(home / "bentoml"),
        **tracking.OFF,
        "OTEL_SDK_DISABLED": "true",
        "STREAMREC_CONFIG": str(Path(base.get("STREAMREC_CONFIG", "streamrec.toml")).resolve()),
    }
    if settings.rules:
        found["STREAMREC_RULES"] = str(settings.rules.resolve())
    for name in (
        "PROMETHEUS_MULTIPROC_DIR",
        "STREAMREC_BUNDLES",
        "STREAMREC_OPERATOR_TOKEN",
        "STREAMREC_CONTROL_DB",
        "STREAMREC_ALERT_WEBHOOK",
        "STREAMREC_ALERT_SECRET",
    ):
        found.pop(name, None)  # of this process, or for none of theirs
    return found


def _name(tag: str, n: int) -> str:
    return f"{PREFIX}{tag.rpartition(':')[2]}-{n}"


def _socket(tag: str, n: int) -> str:
    return f"{tag.rpartition(':')[2]}-{n}.sock"
