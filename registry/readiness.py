"""Does a Bento answer, and is it the one that was asked for? Asked of every URL, in threads beside the controller."""

import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

import msgspec
from uuid6 import uuid7

from contracts import front
from contracts.http import RecommendationResponse
from contracts.routing import Upstream

FALL = 3  # late looks in a row before a ready URL is given up; a plain no counts at once
PERIOD_S = 0.5
TIMEOUT_S = 1.0
SMOKE_TIMEOUT_S = 5.0
SMOKE_AGAIN_S = 5.0
MAX_BODY = 1 << 20

Look = Literal["ready", "late", "no"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """ready: the URLs that answer, by Bento; a Bento with none is not in it. problems: Bento → why it is not whole.
    unknown: Bentos that have not been asked yet."""

    ready: Mapping[str, Upstream]
    problems: Mapping[str, str]
    unknown: frozenset[str] = frozenset()


class Probe(Protocol):
    """Both return at once, with what is known by now."""

    def look(self, upstreams: Mapping[str, Upstream]) -> Readiness: ...

    def smoke(self, bento: str, upstream: Upstream) -> tuple[str, ...] | None:
        """What is wrong with its answers; empty when nothing is, None while the test is under way."""


class AllReady:
    """For simulations. down: Bentos that do not answer. broken: Bento → what its smoke test finds."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.broken: dict[str, tuple[str, ...]] = {}

    def look(self, upstreams: Mapping[str, Upstream]) -> Readiness:
        return Readiness(
            {bento: upstream for bento, upstream in upstreams.items() if bento not in self.down},
            {bento: "does not answer" for bento in upstreams if bento in self.down},
        )

    def smoke(self, bento: str, upstream: Upstream) -> tuple[str, ...] | None:
        return self.broken.get(bento, ())


@dataclass(frozen=True, slots=True)
class Health:
    """Of one URL. late: looks in a row without an answer in time."""

    ready: bool = False
    late: int = 0

    def after(self, look: Look) -> "Health":
        """One slow answer does not take a URL out; a refused connection, another Bento or `unavailable` does."""
        if look == "ready":
            return Health(True)
        if look == "no":
            return Health(False)
        late = self.late + 1
        return Health(self.ready and late < FALL, late)


@dataclass(slots=True)
class _Smoke:
    """A smoke test that is run again while it finds something. found: by the last one that has ended."""

    key: tuple[str, Upstream]
    began: float = 0.0
    test: Future[tuple[str, ...]] | None = None
    found: tuple[str, ...] | None = None


class Prober:
    """Looks at every URL twice a second, in threads of its own.

    Args:
        front_key: shown in the smoke test, so that it writes no exposure.
    """

    def __init__(
        self,
        front_key: str,
        *,
        period_s: float = PERIOD_S,
        timeout_s: float = TIMEOUT_S,
        threads: int = 32,
        smoke_again_s: float = SMOKE_AGAIN_S,
    ) -> None:
        self._key = front_key
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._smoke_again_s = smoke_again_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._wanted: dict[tuple[str, str], None] = {}  # (bento, url)
        self._health: dict[tuple[str, str], tuple[Health, str]] = {}  # with the last problem
        self._under_way: dict[tuple[str, str], float] = {}  # when it began
        self._smoke: _Smoke | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="probe")
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)
        self._thread.start()

    def look(self, upstreams: Mapping[str, Upstream]) -> Readiness:
        wanted = dict.fromkeys((bento, url) for bento, upstream in upstreams.items() for url in upstream.urls)
        with self._lock:
            new = wanted.keys() - self._wanted.keys()
            self._wanted = wanted
            self._health = {key: health for key, health in self._health.items() if key in wanted}
            known = dict(self._health)
        if new:
            self._wake.set()
        ready, problems, unknown = {}, {}, set()
        for bento, upstream in upstreams.items():
            urls = tuple(url for url in upstream.urls if (h := known.get((bento, url))) and h[0].ready)
            if urls:
                ready[bento] = Upstream(urls=urls)
            wrong = [f"{url}: {known[bento, url][1]}" for url in upstream.urls if known.get((bento, url), ("", ""))[1]]
            unseen = [url for url in upstream.urls if (bento, url) not in known]
            if len(unseen) == len(upstream.urls):
                unknown.add(bento)
            if wrong or unseen:
                problems[bento] = "; ".join(wrong + [f"{url}: not looked at yet" for url in unseen])
        return Readiness(ready, problems, frozenset(unknown))

    def smoke(self, bento: str, upstream: Upstream) -> tuple[str, ...] | None:
        key = (bento, upstream)
        smoke = self._smoke if self._smoke and self._smoke.key == key else None
        if smoke is None:
            smoke = self._smoke = _Smoke(key)
        if smoke.test is not None and smoke.test.done():
            smoke.found, smoke.test = smoke.test.result(), None
        waited = time.monotonic() - smoke.began
        if smoke.test is None and (smoke.found is None or (smoke.found and waited >= self._smoke_again_s)):
            smoke.began = time.monotonic()
            smoke.test = self._pool.submit(smoke_test, bento, upstream, self._key)
        return smoke.found

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        """A look at each URL that has none under way: one that hangs holds up no other."""
        while not self._stopped:
            self._wake.clear()
            now = time.monotonic()
            with self._lock:
                due = [key for key in self._wanted if key not in self._under_way]
                stuck = [key for key, began in self._under_way.items() if now - began > 2 * self._timeout_s]
                self._under_way |= dict.fromkeys((*due, *stuck), now)
            for key in stuck:  # a peer that sends a byte now and then
                self._record(key, "late", f"no whole answer within {2 * self._timeout_s:g} s")
            for key in due:
                self._pool.submit(self._ask, key)
            self._wake.wait(self._period_s)

    def _ask(self, key: tuple[str, str]) -> None:
        bento, url = key
        try:
            self._record(key, *ready_look(bento, url, self._timeout_s))
        finally:
            with self._lock:
                self._under_way.pop(key, None)

    def _record(self, key: tuple[str, str], look: Look, problem: str) -> None:
        with self._lock:
            if key in self._wanted:
                health, _ = self._health.get(key, (Health(), ""))
                self._health[key] = (health.after(look), problem)


def ready_look(bento: str, url: str, timeout_s: float) -> tuple[Look, str]:
    """One look at `/readyz`, and what is wrong."""
    try:
        status, body = ask(url, "GET", "/readyz", timeout_s=timeout_s)
    except TimeoutError:
        return "late", f"no answer within {timeout_s:g} s"
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: not a URL
        return "no", str(error) or type(error).__name__
    try:
        document = json.loads(body)
        said, state = document.get("bento"), document.get("status")
    except (ValueError, AttributeError):
        return "no", f"/readyz answers {status} without a document"
    if said != bento:
        return "no", f"{said or 'another service'} answers there"
    if status != 200 or state not in ("ready", "degraded"):
        return "no", f"it is {state or status}"
    return "ready", ""


# A user whom no data set has; few, many and one item; with context, with something excluded.
SMOKE_REQUESTS: tuple[dict[str, object], ...] = (
    {"user_id": "streamrec-smoke-test", "k": 10},
    {"user_id": "streamrec-smoke-test", "k": 1},
    {"user_id": "streamrec-smoke-test-2", "k": 100, "context": {"device": "ios", "country": "DE"}},
    {"user_id": "streamrec-smoke-test-3", "k": 10, "exclude": ["streamrec-no-such-item"]},
)


def smoke_test(bento: str, upstream: Upstream, front_key: str, timeout_s: float = SMOKE_TIMEOUT_S) -> tuple[str, ...]:
    """A handful of recommendations from each URL, as a shadow's: nothing of them is logged or remembered."""
    problems = []
    for url in upstream.urls:
        for request in SMOKE_REQUESTS:
            headers = {
                "content-type": "application/json",
                front.KEY.decode(): front_key,
                front.SHADOW.decode(): "1",
                front.REQUEST_ID.decode(): str(uuid7()),
                front.DEADLINE_MS.decode(): str(int(timeout_s * 1000)),
            }
            body = json.dumps(request).encode()
            try:
                status, answer = ask(
                    url, "POST", "/v1/recommendations", body=body, headers=headers, timeout_s=timeout_s
                )
                wrong = slate_problem(status, answer, bento, int(str(request["k"])))
            except (OSError, ValueError, http.client.HTTPException) as error:
                wrong = str(error) or type(error).__name__
            if wrong:
                problems.append(f"{url}, k {request['k']}: {wrong}")
    return tuple(problems)


def slate_problem(status: int, body: bytes, bento: str, k: int) -> str:
    """What is wrong with one answer; empty when nothing is."""
    if status != 200:
        return f"HTTP {status}: {body[:200].decode(errors='replace')}"
    try:
        answer = msgspec.json.decode(body, type=RecommendationResponse)
    except msgspec.DecodeError as error:
        return f"not a slate: {error}"
    items = answer.items
    if answer.bento != bento:
        return f"answered by {answer.bento}"
    if not items:
        return "no item"
    if len(items) > k:
        return f"{len(items)} items"
    if len({item.item_id for item in items}) != len(items):
        return "an item twice"
    if [item.position for item in items] != list(range(1, len(items) + 1)):
        return "positions are not 1, 2, …"
    if not all(math.isfinite(item.score) for item in items):
        return "a score that is no number"
    return ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    url: str,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
) -> tuple[int, bytes]:
    """(status, body) from `http://HOST:PORT` or `unix:/PATH`.

    Raises:
        OSError, http.client.HTTPException: nobody answers, or not in HTTP, or more than 1 MiB. ValueError: not a URL.
    """
    connection: http.client.HTTPConnection
    if url.startswith("unix:"):
        connection = _UnixConnection(url.removeprefix("unix:"), timeout_s)
    else:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        content = answer.read(MAX_BODY + 1)
        if len(content) > MAX_BODY:
            raise http.client.HTTPException("the answer is over 1 MiB")
        return answer.status, content
    finally:
        connection.close()
