"""How long a change of the live catalogue takes: `python -m benchmarks.catalogue`, JSON on standard output.

`streamrec serve` with two workers over the reference workload. Each worker is asked over a connection of its own every
`EVERY_S`, from the answer to the change on. Seconds, median and worst, until the first and the last worker has it:

put    one new item of each category is put; had when a new user is shown one of them
flag   the first item of a new user's slate is flagged; had when it is not shown

A worker makes new models for a put, and waits for the ones before: changes are `PAUSE_S` apart.
"""

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.processes import server
from benchmarks.reference_home import Size, reference
from benchmarks.reference_world import NOW_US
from contracts.errors import StreamRecError

ROOT = Path(__file__).resolve().parents[1]
EVERY_S = 0.05
PAUSE_S = 1.0
GIVEN_UP_S = 60.0
TOKEN = "of-the-benchmark"  # noqa: S105 - of a server on this machine, for as long as it runs
# An answer from a lower rung says nothing of new items.
PATIENT = {
    "STREAMREC_DEADLINE_MS": "20000",
    "STREAMREC_PATIENCE_MS": "20000",
    "STREAMREC_RETRIEVAL_BUDGET_MS": "8000",
    "STREAMREC_RANKING_BUDGET_MS": "8000",
}
NOBODY = {"user_id": "nobody", "k": 500}


class Worker:
    """One connection, and so always the same worker."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        self.pid = int(self.ask("GET", "/readyz")["pid"])

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        content = dict(json.loads(response.read()))
        if response.status != 200:
            raise StreamRecError(f"{path}: {response.status} {content.get('detail')}")
        return content

    def shown(self) -> list[str]:
        return [item["item_id"] for item in self.ask("POST", "/v1/recommendations", NOBODY)["items"]]

    def close(self) -> None:
        self._connection.close()


def workers_of(url: str, many: int) -> list[Worker]:
    found: dict[int, Worker] = {}
    until = time.monotonic() + GIVEN_UP_S
    while len(found) < many:
        worker = Worker(url)
        if found.setdefault(worker.pid, worker) is not worker:
            worker.close()
        if time.monotonic() > until:
            raise StreamRecError(f"{len(found)} of {many} workers answer")
    return list(found.values())


def until_all(workers: Sequence[Worker], has: Callable[[Worker], bool]) -> list[float]:
    """Seconds from now until each has it, ascending."""
    began, took, left = time.monotonic(), [], list(workers)
    while left:
        for worker in list(left):
            if has(worker):
                took.append(time.monotonic() - began)
                left.remove(worker)
        if time.monotonic() - began > GIVEN_UP_S:
            raise StreamRecError(f"{len(left)} workers do not have a change after {GIVEN_UP_S:.0f} s")
        time.sleep(EVERY_S)
    return took


def puts(workers: Sequence[Worker], changes: int, categories: int) -> list[list[float]]:
    found = []
    for n in range(changes):
        # Not after the end of the world's log, and newer than those before: the newest of a category comes first.
        published = datetime.fromtimestamp(NOW_US / 1e6 - 60 * (changes - n), UTC).isoformat()
        new = [
            {"item_id": f"put-{n}-{c}", "category": f"category {c}", "published_at": published}
            for c in range(categories)
        ]
        workers[n % len(workers)].ask("PUT", "/v1/items", new)
        found.append(until_all(workers, lambda worker, n=n: any(i.startswith(f"put-{n}-") for i in worker.shown())))
        time.sleep(PAUSE_S)
    return found


def flags(workers: Sequence[Worker], changes: int) -> list[list[float]]:
    found = []
    for n in range(changes):
        asked = workers[n % len(workers)]
        item = next(i for i in asked.shown() if i.startswith("i"))  # a Bento's own: its id needs no quoting
        asked.ask("POST", f"/v1/items/{item}/flag")
        found.append(until_all(workers, lambda worker, item=item: item not in worker.shown()))
        time.sleep(PAUSE_S)
    return found


def told(times: Sequence[Sequence[float]]) -> dict[str, float]:
    first, last = [t[0] for t in times], [t[-1] for t in times]
    return {
        "first_s": round(statistics.median(first), 2),
        "last_s": round(statistics.median(last), 2),
        "worst_s": round(max(last), 2),
        "apart_s": round(max(t[-1] - t[0] for t in times), 2),
    }


def run(size: Size, cache: Path, changes: int, workers: int) -> dict[str, Any]:
    made = reference(size, cache)
    with tempfile.TemporaryDirectory(prefix="streamrec-catalogue-") as folder:
        home = made.home(Path(folder) / "home")
        env = {"STREAMREC_HOME": str(home), "STREAMREC_BUNDLES": str(made.world), "STREAMREC_TOKEN": TOKEN, **PATIENT}
        command = [sys.executable, "-m", "cli", "serve", "--port", "0", "--json", "--workers", str(workers)]
        log = Path(folder) / "serve.log"
        with server("streamrec", command, core=None, log=log, env=env, cwd=ROOT) as served:
            found = workers_of(served.url, workers)
            return {
                "items": size.items,
                "workers": workers,
                "changes": changes,
                "put": told(puts(found, changes, size.categories)),
                "flag": told(flags(found, changes)),
            }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalogue", description=__doc__.splitlines()[0])
    parser.add_argument("--changes", type=int, default=20, help="of each kind")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--users", type=int, default=Size().users)
    parser.add_argument("--items", type=int, default=Size().items)
    parser.add_argument("--cache", type=Path, default=Path(".streamrec") / "bench")
    arguments = parser.parse_args()
    size = Size(users=arguments.users, items=arguments.items)
    json.dump(run(size, arguments.cache, arguments.changes, arguments.workers), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
