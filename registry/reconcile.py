"""MLflow aliases follow the control state: `champion` and `challenger` on the model versions of those Bentos.

The control database is the truth and this only ever brings the aliases after it, so that it does not matter where a
crash tears the two apart. Run as `python -m registry.reconcile`, a short process of its own: MLflow takes seconds and
hundreds of megabytes to import, which a controller that must react within a second does not carry.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from contracts.errors import NotFound, StreamRecError
from contracts.parent import end_with_parent
from contracts.settings import Settings, load_settings
from registry.artifacts import KINDS, Kind, model_name
from registry.releases.values import ControlState
from registry.versions import CHALLENGER, CHAMPION, parse_ref

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECOND = 1_000_000
TIMEOUT_S = 120.0
BACKOFF_S = (2.0, 5.0, 15.0, 60.0, 300.0)
AGAIN_S = 3600.0  # somebody may have moved an alias by hand

__all__ = ["Aliases", "NoAliases", "Reconciler", "reconcile", "wanted_versions"]


class Aliases(Protocol):
    def want(self, champion: str | None, challenger: str | None, now_us: int) -> str | None:
        """Bento tags. Returns at once, with what is wrong so far."""


class NoAliases:
    """For simulations, and tests: remembers what was wanted."""

    def __init__(self) -> None:
        self.wanted: list[tuple[str | None, str | None]] = []

    def want(self, champion: str | None, challenger: str | None, now_us: int) -> str | None:
        if not self.wanted or self.wanted[-1] != (champion, challenger):
            self.wanted.append((champion, challenger))
        return None


class Reconciler:
    """Starts the process when what is wanted has changed, one at a time, again with growing pauses while it fails.

    Args:
        argv: the command, for tests. It ends with this process, however that ends.
    """

    def __init__(self, argv: tuple[str, ...] | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._argv = argv or (sys.executable, "-m", "registry.reconcile", str(os.getpid()))
        self._timeout_us = int(timeout_s * SECOND)
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._asked: tuple[str | None, str | None] = (None, None)
        self._reached: tuple[str | None, str | None] = (None, None)
        self._began_us = 0
        self._failures = 0
        self._problem: str | None = None

    def want(self, champion: str | None, challenger: str | None, now_us: int) -> str | None:
        wanted = (champion, challenger)
        if self._process is not None:
            self._attend(now_us)
            return self._problem
        if wanted == self._reached:
            pause_s = AGAIN_S
        elif wanted == self._asked and self._failures:
            pause_s = BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1]
        else:
            pause_s = 0.0
        if champion is not None and not 0 <= now_us - self._began_us < pause_s * SECOND:
            self._start(wanted, now_us)
        return self._problem

    @property
    def running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self, wanted: tuple[str | None, str | None], now_us: int) -> None:
        self._asked, self._began_us = wanted, now_us
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 — closed when the process has ended
        try:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said
            )
        except OSError as error:
            self._failures += 1
            self._problem = f"cannot be reconciled: {error}"

    def _attend(self, now_us: int) -> None:
        process = self._process
        assert process is not None  # noqa: S101 — the caller has looked
        assert self._said is not None  # noqa: S101
        code = process.poll()
        if code is None and 0 <= now_us - self._began_us < self._timeout_us:
            return
        if code is None:
            process.kill()
            code = process.wait()
        self._process = None
        with self._said as said:
            said.seek(max(0, said.seek(0, os.SEEK_END) - 2000))
            words = said.read().decode(errors="replace").strip().splitlines()
        if code == 0:
            self._reached, self._failures, self._problem = self._asked, 0, None
            return
        self._failures += 1
        why = "took too long" if code == -signal.SIGKILL else (words[-1] if words else f"ended with {code}")
        self._problem = f"not reconciled, and tried again later: {why}"


def wanted_versions(state: ControlState, home: Path) -> tuple[dict[str, dict[Kind, int]], list[str]]:
    """Alias → kind → version number, and what is not known. An alias of which nothing is known is left alone."""
    release = state.release
    champion = state.champion.bento if state.champion else None
    active = release is not None and release.active and release.kind == "bento"
    challenger = release.candidate.bento if release and active else None
    found: dict[str, dict[Kind, int]] = {}
    problems = []
    for alias, bento in ((CHAMPION, champion), (CHALLENGER, challenger if challenger != champion else None)):
        try:
            found[alias] = _versions(bento, home) if bento else {}
        except StreamRecError as error:
            problems.append(f"{alias}: {error.message}")
    return found, problems


def reconcile(client: "MlflowClient", wanted: dict[str, dict[Kind, int]]) -> list[str]:
    """Move what is not where it should be; returns what was done. Run again, it does nothing.

    Raises:
        Unreachable: MLflow does not answer.
    """
    from registry.mlflow_client import translated

    done = []
    for alias in sorted(wanted, key=(CHAMPION, CHALLENGER).index):
        for kind in KINDS:
            name = model_name(kind)
            with translated(f"aliases of {name}"):
                now = _aliases(client, name)
                number = wanted[alias].get(kind)
                if number is not None and now.get(alias) != number:
                    client.set_registered_model_alias(name, alias, str(number))
                    done.append(f"{name}@{alias} = {number}")
                elif number is None and alias in now:
                    client.delete_registered_model_alias(name, alias)
                    done.append(f"{name}@{alias} removed")
    return done


def _aliases(client: "MlflowClient", name: str) -> dict[str, int]:
    found: Any = client.search_registered_models(filter_string=f"name='{name}'", max_results=1)
    return {alias: int(number) for alias, number in found[0].aliases.items()} if found else {}


def _versions(bento: str, home: Path) -> dict[Kind, int]:
    from registry.bento_store import stored_bento

    labels = stored_bento(bento, home).labels
    found: dict[Kind, int] = {}
    for kind in KINDS:
        label = labels.get(f"mlflow.{kind}")
        if label is None:
            raise NotFound(f"{bento} has no label mlflow.{kind}")
        number = parse_ref(label, kind).number
        if number is None:
            raise NotFound(f"{bento}: label mlflow.{kind} is {label}, which is no version")
        found[kind] = number
    return found


def main(settings: Settings) -> int:
    """Bring the aliases after the control state as it is now."""
    from registry.control.sql import control_store
    from registry.mlflow_client import connect

    wanted, problems = wanted_versions(control_store(settings).load(), settings.home)
    if any(wanted.values()) or not problems:  # else nothing is known here, and MLflow need not be loaded for it
        for line in reconcile(connect(settings), wanted):
            print(line)
    if problems:
        print("; ".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        end_with_parent(int(sys.argv[1]))
    try:
        sys.exit(main(load_settings()))
    except StreamRecError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.exit_code)
