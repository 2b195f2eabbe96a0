"""A home with Bentos that were not trained, and the whole stack over it: for end-to-end tests of releases."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.reference_world import user_id, write_world
from contracts.settings import Settings
from registry.builds import build, make_plan
from registry.models import Registry
from registry.registration import Lineage
from tests.made_evidence import measured_checks

ROOT = Path(__file__).resolve().parents[2]
USERS, ITEMS = 400, 400


def make_home(folder: Path, *, bentos: int = 2) -> tuple[Path, list[str]]:
    """A home and the tags of Bentos of one small world, with evidence that passes."""
    home = folder / "home"
    bundles = write_world(folder / "world", users=USERS, items=ITEMS, seed=1)
    registry = Registry.open(Settings(home=home))
    lineage = Lineage("world", "ab" * 32, "", {"world": 1}, None, {"ndcg@10": 0.1}, {"popularity": {"ndcg@10": 0.0}})
    with registry.run("world") as run:
        run.register(bundles, measured_checks(registry, bundles), lineage)
    return home, [build(make_plan(registry), home).tag for _ in range(bentos)]


def until(condition: Callable[[], Any], timeout_s: float = 60, what: str = "the condition") -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come true within {timeout_s:g} s")


@dataclass
class Cli:
    """`streamrec` on one home."""

    home: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, code: int = 0, timeout_s: float = 180) -> dict[str, Any]:
        done = self.run(*words, "--json", timeout_s=timeout_s)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return json.loads(done.stdout) if done.stdout.strip() else {"error": done.stderr}

    def run(self, *words: str, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("STREAMREC_")},
                "STREAMREC_HOME": str(self.home),
                "STREAMREC_DEADLINE_MS": "5000",  # a busy machine must not change the answers
                "STREAMREC_PATIENCE_MS": "5000",
                "STREAMREC_RETRIEVAL_BUDGET_MS": "2500",
                "STREAMREC_RANKING_BUDGET_MS": "1500",
                "STREAMREC_CONTROL_PORT": "0",
                "OMP_NUM_THREADS": "1",
                **self.env,
            },
        )

    def logs(self) -> str:
        found = sorted((self.home / "log").glob("*.log"))
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-1500:]}" for p in found)

    def release(self) -> dict[str, Any]:
        """The newest release as `release status` has it."""
        releases = self("release", "status")["releases"]
        return dict(releases[0]) if releases else {}


class Traffic:
    """Users who ask, and click on what they like, until the block ends. `failed`: answers that were no 200."""

    def __init__(self, url: str, *, threads: int = 2, click: float = 0.3, pause_s: float = 0.0) -> None:
        self._url, self._click, self._pause_s = url, click, pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(threads)]
        self.answers: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self.retried = 0

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, seed: int) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            n = seed
            while not self._stop.is_set():
                n += len(self._threads)
                country = ("DE", "FR", "GB")[n % 3]
                body = {"user_id": user_id(n % USERS), "k": 10, "context": {"country": country, "device": "web"}}
                try:
                    answer = self._post(client, "/v1/recommendations", body)
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                if answer.status_code != 200:
                    self.failed.append(f"{answer.status_code} {answer.text[:200]}")
                    self._stop.wait(0.05)
                    continue
                document = answer.json()
                self.answers.append(document)
                if document["items"] and (n * 7919) % 1000 < 1000 * self._click:
                    self._click_on(client, document, n)
                if self._pause_s:
                    self._stop.wait(self._pause_s)

    def _post(self, client: httpx.Client, path: str, body: Any) -> httpx.Response:
        """A connection that died with its gateway process is tried once more, as any client's library does."""
        try:
            return client.post(path, json=body)
        except httpx.TransportError:
            self.retried += 1
            return client.post(path, json=body)

    def _click_on(self, client: httpx.Client, document: dict[str, Any], n: int) -> None:
        event = {
            "event_id": f"{document['request_id']}-c",
            "user_id": document["user_id"],
            "item_id": document["items"][0]["item_id"],
            "event": "click",
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": document["request_id"],
            "position": 1,
        }
        try:
            answer = self._post(client, "/v1/events", [event])
        except httpx.HTTPError as error:
            self.failed.append(f"event: {error!r}")
            return
        if answer.status_code != 202:
            self.failed.append(f"event: {answer.status_code} {answer.text[:200]}")
